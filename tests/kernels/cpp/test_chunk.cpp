#include "sprat/chunk.hpp"

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "check.hpp"

namespace {

using Windows = std::vector<std::vector<std::int64_t>>;

struct Tokens {
  std::vector<std::int32_t> spans;

  std::size_t size() const { return spans.size() / 2; }
};

// Pieces of at most `longest` characters; white space separates them and is no token.
Tokens cut(const std::u32string& text, std::size_t longest) {
  Tokens tokens;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at;
    while (end < text.size() && end - at < longest && !sprat::chunking::is_space(text[end])) {
      ++end;
    }
    if (end > at) {
      tokens.spans.push_back(static_cast<std::int32_t>(at));
      tokens.spans.push_back(static_cast<std::int32_t>(end));
    }
    at = end > at ? end : end + 1;
  }
  return tokens;
}

template <typename Char>
Windows chunk(const std::basic_string<Char>& text, const Tokens& tokens, std::size_t max_tokens,
              std::size_t overlap_tokens) {
  // A buffer of exactly this size: AddressSanitizer sees a read past the text.
  const std::vector<Char> characters(text.begin(), text.end());
  Windows windows;
  for (const sprat::Window& window :
       sprat::chunk(characters.data(), characters.size(), tokens.spans.data(), tokens.size(),
                    max_tokens, overlap_tokens)) {
    windows.push_back({window.first, window.last});
  }
  return windows;
}

void ends_with_a_sentence_or_a_word() {
  const std::u32string text = U"One two. Four five six abcdefgh";
  const Tokens tokens = cut(text, 3);  // One two . Fou r fiv e six abc def gh
  CHECK((chunk(text, tokens, 5, 0) == Windows{{0, 3}, {3, 8}, {8, 11}}));
  CHECK((chunk(text, tokens, 6, 0) == Windows{{0, 5}, {5, 11}}));
  CHECK((chunk(text, tokens, 11, 10) == Windows{{0, 11}}));
  CHECK((chunk(text, tokens, 2, 1) ==
         Windows{{0, 1}, {1, 3}, {3, 5}, {5, 7}, {7, 8}, {8, 10}, {9, 11}}));
  CHECK((chunk(text, tokens, 6, 3) == Windows{{0, 5}, {3, 8}, {5, 11}}));
}

void takes_every_width() {
  const Tokens tokens = cut(U"One two. Four", 13);
  CHECK(chunk(std::basic_string<unsigned char>{'O', 'n', 'e', ' ', 't', 'w', 'o', '.', ' ', 'F',
                                               'o', 'u', 'r'},
              tokens, 2, 0) == (Windows{{0, 2}, {2, 3}}));
  CHECK(chunk(std::u16string(u"One two. Four"), tokens, 2, 0) == (Windows{{0, 2}, {2, 3}}));
}

void takes_nothing() {
  CHECK(chunk(std::u32string(), {}, 1, 0).empty());
  CHECK(chunk(std::u32string(U"  "), {}, 1, 0).empty());
  CHECK((chunk(std::u32string(), {{0, 0, 0, 0}}, 1, 0) == Windows{{0, 1}, {1, 2}}));
}

// The promises, on texts of all that the rules speak of and on spans of any kind.
void keeps_its_promises() {
  std::mt19937 random(7);
  const std::u32string alphabet = U"ab.!\"') \n\r\u3002\u300D\u201C\u5B57\u30AB\uFF0C";
  for (int round = 0; round < 20000; ++round) {
    std::u32string text(random() % 40, U' ');
    for (char32_t& c : text) {
      c = alphabet[random() % alphabet.size()];
    }
    Tokens tokens = cut(text, 1 + random() % 4);
    if (round % 4 == 0) {  // Tokens that share characters, or have none.
      for (std::size_t i = 2; i < tokens.spans.size(); i += 2) {
        tokens.spans[i] = tokens.spans[i - 2 + random() % 2];
      }
    }
    const std::size_t max_tokens = 1 + random() % 8;
    const std::size_t overlap_tokens = random() % max_tokens;
    const auto most = static_cast<std::int64_t>(max_tokens);
    const auto count = static_cast<std::int64_t>(tokens.size());
    std::int64_t start = -1;
    std::int64_t end = 0;
    for (const auto& window : chunk(text, tokens, max_tokens, overlap_tokens)) {
      CHECK(window[0] > start && window[1] > end);
      CHECK(window[0] <= end && end - window[0] <= static_cast<std::int64_t>(overlap_tokens));
      CHECK(window[1] > window[0] && window[1] - window[0] <= most);
      start = window[0];
      end = window[1];
    }
    CHECK(end == count);
  }
}

void knows_the_edges_of_its_classes() {
  for (const char32_t c : {0x2E80, 0x3005, 0x30FF, 0x4E00, 0x9FFF, 0xFF9F, 0x20000, 0x3FFFF}) {
    CHECK(sprat::chunking::is_unspaced(c));
  }
  for (const char32_t c : {0x61, 0x2E7F, 0x3004, 0x3040, 0xAC00, 0xFFA0, 0x1F41F, 0x40000}) {
    CHECK(!sprat::chunking::is_unspaced(c));
  }
}

}  // namespace

int main() {
  ends_with_a_sentence_or_a_word();
  takes_every_width();
  takes_nothing();
  keeps_its_promises();
  knows_the_edges_of_its_classes();
  return 0;
}
