// Input: a byte of settings (modulo 8), a byte of options, a byte for the limit, then the text in
// UTF-8.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fuzz.hpp"
#include "sprat/utf8.hpp"
#include "sprat/wordpiece.hpp"

namespace {

std::u32string decode(const Bytes& bytes, std::size_t first) {
  sprat::Utf8Stream stream;
  std::string utf8;
  if (first < bytes.size()) {
    stream.feed({reinterpret_cast<const char*>(bytes.data()) + first, bytes.size() - first}, utf8);
  }
  stream.flush(utf8);
  std::u32string text;
  for (std::size_t i = 0; i < utf8.size();) {
    const auto lead = static_cast<unsigned char>(utf8[i]);
    const int more = lead < 0x80 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    char32_t code = more == 0 ? lead : lead & (0x3FU >> more);
    for (++i;
         text.size() < i && i < utf8.size() && (static_cast<unsigned char>(utf8[i]) & 0xC0) == 0x80;
         ++i) {
      code = code << 6 | (static_cast<unsigned char>(utf8[i]) & 0x3F);
    }
    text.push_back(code);
  }
  return text;
}

std::vector<sprat::WordPiece> tokenizers() {
  const std::vector<std::u32string> words = {
      U"[UNK]",    U"[CLS]",    U"[SEP]",        U"a",          U"##a", U"un",       U"##aff",
      U"##able",   U"!",        U"\u4e00",       U"\u00e9",     U"e",   U"\u1112",   U"##\u1161",
      U"##\u11ab", U"##\u302e", U"##\U0001d165", U"\U0001f41f", U"i",   U"##\u0307", U"##"};
  std::vector<sprat::WordPieceToken> vocabulary;
  for (const std::u32string& word : words) {
    vocabulary.push_back({word, static_cast<std::int32_t>(vocabulary.size())});
  }
  std::vector<sprat::WordPiece> made;
  for (const unsigned flags : {63U, 55U, 47U, 31U, 62U, 50U, 4U, 0U}) {
    sprat::WordPieceSettings settings;
    settings.clean_text = (flags & 1) != 0;
    settings.handle_chinese_chars = (flags & 2) != 0;
    settings.strip_accents = (flags & 4) != 0;
    settings.lowercase = (flags & 8) != 0;
    settings.max_word_chars = (flags & 16) != 0 ? 100 : 5;
    settings.before = {1};
    settings.after = {2};
    made.emplace_back(settings, vocabulary, (flags & 32) != 0 ? U"##" : U"",
                      std::vector<sprat::WordPieceToken>{{U"[SEP]", 2}, {U"[", 3}});
  }
  return made;
}

template <typename Unit>
sprat::WordPieceRows encode(const sprat::WordPiece& wordpiece, const std::u32string& text,
                            const sprat::WordPieceOptions& options) {
  const std::vector<Unit> units(text.begin(), text.end());
  sprat::WordPieceRows rows;
  wordpiece.encode({units.data(), units.size(), sizeof(Unit)}, options, rows);
  return rows;
}

// Rows are well-formed, alike at every width of text, and alike where they are cut.
void check(const sprat::WordPiece& wordpiece, const std::u32string& text,
           sprat::WordPieceOptions options, std::size_t limit) {
  const sprat::WordPieceRows whole = encode<std::uint32_t>(wordpiece, text, options);
  const std::size_t tokens = whole.ids.size();
  CHECK(tokens >= 2);
  CHECK(tokens <= 3 * text.size() + 2);
  CHECK(whole.ids.front() == 1);
  CHECK(whole.ids.back() == 2);
  CHECK(whole.spans.size() == 2 * tokens);
  CHECK(whole.dropped.at(0) == 0);
  std::int32_t previous = 0;
  for (std::size_t i = 1; i + 1 < tokens; ++i) {
    const std::int32_t start = whole.spans[2 * i], end = whole.spans[2 * i + 1];
    CHECK(whole.ids[i] >= 0 && whole.ids[i] <= 20);
    CHECK(previous <= start && start < end);
    CHECK(static_cast<std::size_t>(end) <= text.size());
    previous = start;
  }
  char32_t largest = 0;
  for (const char32_t each : text) {
    largest = std::max(largest, each);
  }
  if (largest < 0x100) {
    CHECK(encode<std::uint8_t>(wordpiece, text, options).spans == whole.spans);
  }
  if (largest < 0x10000) {
    CHECK(encode<std::uint16_t>(wordpiece, text, options).ids == whole.ids);
  }
  options.max_tokens = limit;
  const sprat::WordPieceRows cut = encode<std::uint32_t>(wordpiece, text, options);
  CHECK(cut.ids.size() == std::min(tokens, limit));
  CHECK(std::equal(cut.ids.begin(), cut.ids.end() - 1, whole.ids.begin()));
  CHECK(cut.ids.back() == 2);
  const auto excess = static_cast<std::int64_t>(tokens - cut.ids.size());
  CHECK(cut.dropped.at(0) == (options.count_dropped || excess == 0 ? excess : -1));
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<sprat::WordPiece> made = tokenizers();
  return fuzz(count, arguments, [&made](const Bytes& bytes) {
    const auto byte = [&bytes](std::size_t i) { return i < bytes.size() ? bytes[i] : 0U; };
    sprat::WordPieceOptions options;
    options.count_dropped = (byte(1) & 1) != 0;
    options.parse_special = (byte(1) & 2) != 0;
    check(made[byte(0) % made.size()], decode(bytes, 3), options, 2 + byte(2) % 32);
  });
}
