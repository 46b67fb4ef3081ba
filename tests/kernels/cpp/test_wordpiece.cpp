#include "sprat/wordpiece.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"

namespace {

using sprat::PieceTrie;
using Ids = std::vector<std::int32_t>;

// A buffer of exactly the text's size: AddressSanitizer sees a read past it.
template <typename Unit>
sprat::WordPieceRows encode(const sprat::WordPiece& wordpiece, const std::u32string& text,
                            const sprat::WordPieceOptions& options = {}) {
  const std::vector<Unit> units(text.begin(), text.end());
  sprat::WordPieceRows rows;
  wordpiece.encode({units.data(), units.size(), sizeof(Unit)}, options, rows);
  return rows;
}

std::vector<sprat::WordPieceToken> numbered(const std::vector<std::u32string>& texts) {
  std::vector<sprat::WordPieceToken> tokens;
  for (const std::u32string& text : texts) {
    tokens.push_back({text, static_cast<std::int32_t>(tokens.size())});
  }
  return tokens;
}

const std::vector<std::u32string> words = {U"[UNK]", U"[CLS]",        U"[SEP]", U"un",
                                           U"##aff", U"##able",       U"!",     U"\u4e00",
                                           U"a",     U"##\U0001d165", U"[",     U"##\u302e"};

sprat::WordPiece made(std::size_t max_word_chars = 100) {
  sprat::WordPieceSettings settings;
  settings.before = {1};
  settings.after = {2};
  settings.max_word_chars = max_word_chars;
  return {settings, numbered(words), U"##", {{U"[SEP]", 2}, {U"[", 10}}};
}

const sprat::WordPiece& plain() {
  static const sprat::WordPiece wordpiece = made();
  return wordpiece;
}

void encodes_alike_at_every_width() {
  const sprat::WordPiece& wordpiece = plain();
  const std::u32string text = U"Unaffable!\xDCn x";
  const Ids ids = {1, 3, 4, 5, 6, 3, 0, 2};
  const Ids spans = {0, 0, 0, 2, 2, 5, 5, 9, 9, 10, 10, 12, 13, 14, 0, 0};
  const auto check = [&](const sprat::WordPieceRows& rows) {
    CHECK(rows.ids == ids);
    CHECK(rows.spans == spans);
    CHECK(rows.ends == std::vector<std::int64_t>{8});
    CHECK(rows.dropped == std::vector<std::int64_t>{0});
  };
  check(encode<std::uint8_t>(wordpiece, text));
  check(encode<std::uint16_t>(wordpiece, text));
  check(encode<std::uint32_t>(wordpiece, text));
}

void knows_beginnings_from_continuations() {
  const sprat::WordPiece& wordpiece = plain();
  CHECK((encode<std::uint8_t>(wordpiece, U"aff").ids == Ids{1, 0, 2}));
  CHECK((encode<std::uint8_t>(wordpiece, U"aaff").ids == Ids{1, 8, 4, 2}));
  CHECK((encode<std::uint8_t>(wordpiece, U"unaffa").ids == Ids{1, 0, 2}));
  CHECK((encode<std::uint16_t>(wordpiece, U"a\u4e00a").ids == Ids{1, 8, 7, 8, 2}));
  CHECK((encode<std::uint8_t>(wordpiece, U"").ids == Ids{1, 2}));
}

void moves_kept_marks() {
  const sprat::WordPiece& wordpiece = plain();
  // U+0301 goes, U+302E stays and takes its place in the text.
  const sprat::WordPieceRows rows = encode<std::uint16_t>(wordpiece, U"a\u0301\u302e");
  CHECK((rows.ids == Ids{1, 8, 11, 2}));
  CHECK((rows.spans == Ids{0, 0, 0, 1, 1, 2, 0, 0}));
  // U+1D15E is U+1D157 with U+1D165, in front of which U+0334 has to stand.
  const std::u32string note = U"\U0001d15e\u0334";
  CHECK((encode<std::uint32_t>(wordpiece, note).spans == Ids{0, 0, 0, 2, 0, 0}));
  CHECK((encode<std::uint32_t>(wordpiece, U"\u302e").spans == Ids{0, 0, 0, 1, 0, 0}));
}

void holds_words_to_their_limit() {
  for (const std::size_t limit : {0, 1, 2, 9}) {
    const sprat::WordPiece wordpiece = made(limit);
    CHECK((encode<std::uint8_t>(wordpiece, U"a").ids == Ids{1, limit == 0 ? 0 : 8, 2}));
    const bool fits = limit >= 9;
    CHECK((encode<std::uint8_t>(wordpiece, U"unaffable").ids ==
           (fits ? Ids{1, 3, 4, 5, 2} : Ids{1, 0, 2})));
  }
}

void truncates_at_every_length() {
  const sprat::WordPiece& wordpiece = plain();
  const std::u32string text = U"unaffable ! a \u4e00 zz unaffable";
  const Ids whole = encode<std::uint16_t>(wordpiece, text).ids;
  for (std::size_t limit = 2; limit <= whole.size() + 1; ++limit) {
    for (const bool count : {false, true}) {
      sprat::WordPieceOptions options;
      options.max_tokens = limit;
      options.count_dropped = count;
      const sprat::WordPieceRows rows = encode<std::uint16_t>(wordpiece, text, options);
      Ids expected = whole;
      std::int64_t dropped = 0;
      if (limit < whole.size()) {
        expected.resize(limit - 1);
        expected.push_back(2);
        dropped = count ? static_cast<std::int64_t>(whole.size() - limit) : -1;
      }
      CHECK(rows.ids == expected);
      CHECK(rows.spans.size() == 2 * expected.size());
      CHECK(rows.dropped == std::vector<std::int64_t>{dropped});
    }
  }
}

void finds_special_tokens_when_asked() {
  const sprat::WordPiece& wordpiece = plain();
  sprat::WordPieceOptions options;
  options.parse_special = true;
  const sprat::WordPieceRows rows = encode<std::uint8_t>(wordpiece, U"un[SEP]aff[SE", options);
  CHECK((rows.ids == Ids{1, 3, 2, 0, 10, 0, 2}));
  CHECK((rows.spans == Ids{0, 0, 0, 2, 2, 7, 7, 10, 10, 11, 11, 13, 0, 0}));
  options.max_tokens = 4;
  CHECK((encode<std::uint8_t>(wordpiece, U"un[SEP]aff[SE", options).ids == Ids{1, 3, 2, 2}));
  CHECK((encode<std::uint8_t>(wordpiece, U"[SEP]").ids == Ids{1, 10, 0, 0, 2}));
}

void shares_work_between_threads() {
  const sprat::WordPiece& wordpiece = plain();
  std::vector<std::vector<std::uint8_t>> texts;
  std::vector<sprat::TextView> views;
  for (std::size_t i = 0; i < 40; ++i) {
    texts.emplace_back(i % 7 == 0 ? 300 : i, static_cast<std::uint8_t>(i % 3 == 0 ? 'a' : ' '));
  }
  for (const auto& text : texts) {
    views.push_back({text.data(), text.size(), 1});
  }
  const auto expected = sprat::encode_batch(wordpiece, views, {}, 1);
  for (const std::size_t threads : {2, 3, 39, 40, 256}) {
    Ids ids;
    std::size_t rows = 0;
    for (const sprat::WordPieceRows& part : sprat::encode_batch(wordpiece, views, {}, threads)) {
      ids.insert(ids.end(), part.ids.begin(), part.ids.end());
      rows += part.ends.size();
    }
    CHECK(ids == expected[0].ids);
    CHECK(rows == texts.size());
  }
  CHECK(sprat::encode_batch(wordpiece, {}, {}, 4).size() == 1);
}

template <typename Unit>
void finds_surrogates() {
  std::vector<Unit> units(100, Unit{0xD7FF});
  const sprat::TextView view = {units.data(), units.size(), sizeof(Unit)};
  units[7] = 0xE000;
  CHECK(sprat::first_surrogate(view) == units.size());
  for (const std::size_t at : {99, 50, 0}) {
    units[at] = at == 50 ? Unit{0xD800} : Unit{0xDFFF};
    CHECK(sprat::first_surrogate(view) == at);
  }
}

// Against a search through all entries.
void trie_finds_the_longest() {
  std::mt19937 random(7);
  for (const std::uint32_t alphabet : {1U, 3U, 40U, 3000U}) {
    std::map<PieceTrie::Codes, std::int32_t> sides[2];
    for (std::int32_t id = 0; id < 3000; ++id) {
      PieceTrie::Codes codes(random() % 6);
      for (std::uint32_t& code : codes) {
        code = static_cast<std::uint32_t>(1 + random() % alphabet);
      }
      sides[random() % 2].emplace(codes, id);
    }
    PieceTrie trie;
    trie.build({sides[0].begin(), sides[0].end()}, {sides[1].begin(), sides[1].end()}, alphabet);
    for (int round = 0; round < 3000; ++round) {
      PieceTrie::Codes text(1 + random() % 9);
      for (std::uint32_t& code : text) {
        code = static_cast<std::uint32_t>(1 + random() % alphabet);
      }
      const std::size_t at = random() % text.size();
      std::size_t end = at;
      std::int32_t expected = -1;
      for (std::size_t i = at + 1; i <= text.size(); ++i) {
        const auto& side = sides[at == 0 ? 0 : 1];
        const auto found = side.find({text.begin() + static_cast<std::ptrdiff_t>(at),
                                      text.begin() + static_cast<std::ptrdiff_t>(i)});
        if (found != side.end()) {
          end = i;
          expected = found->second;
        }
      }
      std::int32_t id = 0;
      const auto code = [&text](std::size_t i) { return text[i]; };
      CHECK(trie.longest(code, at, text.size(), id) == end);
      CHECK(end == at || id == expected);
    }
  }
}

}  // namespace

int main() {
  encodes_alike_at_every_width();
  knows_beginnings_from_continuations();
  moves_kept_marks();
  holds_words_to_their_limit();
  truncates_at_every_length();
  finds_special_tokens_when_asked();
  shares_work_between_threads();
  finds_surrogates<std::uint16_t>();
  finds_surrogates<std::uint32_t>();
  trie_finds_the_longest();
  return 0;
}
