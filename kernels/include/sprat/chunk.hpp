// Splitting of long texts; specified by sprat.kernels.reference.chunk.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace sprat {

struct Window {
  std::int64_t first;  // tokens [first, last)
  std::int64_t last;
};

namespace chunking {

constexpr std::u32string_view ends = U".!?\u2026";
constexpr std::u32string_view wide_ends = U"\u3002\uFF01\uFF1F\uFF0E\uFF61";
constexpr std::u32string_view closing =
    U")]}\"'\u201D\u2019\u00BB\u203A\u300D\u300F\uFF09\uFF3D\uFF5D\u3011\u300B\u3009\u3015";
constexpr std::u32string_view opening =
    U"([{\u201C\u2018\u00AB\u2039\u300C\u300E\uFF08\uFF3B\uFF5B\u3010\u300A\u3008\u3014";
constexpr std::u32string_view closing_too = U"\u201C\u2018\u00AB\u2039";
constexpr std::u32string_view inside =
    U",;:\uFF0C\u3001\uFF1B\uFF1A\u00B7\u30FB\u30FC\u3005\u3099\u309A";

constexpr bool among(std::u32string_view characters, char32_t c) {
  return characters.find(c) != std::u32string_view::npos;
}

// What Python's str.isspace says.
constexpr bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

// Ideographs and kana.
constexpr bool is_unspaced(char32_t c) {
  struct Range {
    char32_t lowest;
    char32_t highest;
  };
  constexpr Range ranges[] = {
      {0x2E80, 0x2FDF}, {0x3005, 0x3007},   {0x3021, 0x3029},   {0x3041, 0x30FF}, {0x3105, 0x312F},
      {0x31A0, 0x31BF}, {0x31F0, 0x31FF},   {0x3400, 0x4DBF},   {0x4E00, 0x9FFF}, {0xF900, 0xFAFF},
      {0xFF66, 0xFF9F}, {0x1AFF0, 0x1B16F}, {0x20000, 0x3FFFF},
  };
  for (const Range& range : ranges) {
    if (c <= range.highest) {
      return c >= range.lowest;
    }
  }
  return false;
}

// What a character may be, as bits.
enum Kind : unsigned {
  space = 1,
  unspaced = 2,
  end = 4,       // of a sentence, when white space follows
  wide_end = 8,  // of a sentence, whatever follows
  closes = 16,
  closes_too = 32,   // after `end` only
  never_first = 64,  // of a window, next to an ideograph
  never_last = 128,
};

constexpr unsigned computed_kind(char32_t c) {
  unsigned kind = 0;
  kind |= is_space(c) ? space : 0U;
  kind |= is_unspaced(c) ? unspaced : 0U;
  kind |= among(ends, c) ? end | never_first : 0U;
  kind |= among(wide_ends, c) ? wide_end | never_first : 0U;
  kind |= among(closing, c) ? closes | never_first : 0U;
  kind |= among(closing_too, c) ? closes_too : 0U;
  kind |= among(inside, c) ? never_first : 0U;
  kind |= among(opening, c) ? never_last : 0U;
  return kind;
}

constexpr std::array<unsigned char, 128> ascii_kinds = [] {
  std::array<unsigned char, 128> kinds = {};
  for (std::size_t c = 0; c < kinds.size(); ++c) {
    kinds[c] = static_cast<unsigned char>(computed_kind(static_cast<char32_t>(c)));
  }
  return kinds;
}();

inline unsigned kind_of(char32_t c) {
  if (c < ascii_kinds.size()) {
    return ascii_kinds[c];
  }
  return c >= 0x3400 && c < 0xFE00 ? (is_unspaced(c) ? unspaced : 0U) : computed_kind(c);
}

// Reads a text once from its start and knows whether a sentence begins where it stands.
template <typename Char>
class Reader {
 public:
  Reader(const Char* text, std::size_t size) : text_(text), size_(size) {}

  // Goes on to `place` and over the white space there; stays when it is beyond.
  void advance(std::size_t place) {
    for (; at_ < size_; ++at_) {
      const unsigned kind = kind_of(text_[at_]);
      if (at_ >= place && (kind & space) == 0) {
        break;
      }
      take(text_[at_], kind);
    }
  }

  bool sentence_begins() const {
    if (in_space_) {
      return mark_ != 0 || line_ends_ >= 2;
    }
    return mark_ == wide_end &&
           (at_ == size_ || (kind_of(text_[at_]) & (end | wide_end | closes)) == 0);
  }

 private:
  void take(char32_t c, unsigned kind) {
    if ((kind & space) != 0) {
      line_ends_ += c == '\r' || (c == '\n' && !after_return_) ? 1 : 0;
      after_return_ = c == '\r';
      in_space_ = true;
      return;
    }
    if ((kind & (end | wide_end)) != 0) {
      mark_ = kind & (end | wide_end);
    } else if (in_space_ || (kind & (mark_ == end ? closes | closes_too : closes)) == 0) {
      mark_ = 0;
    }
    line_ends_ = 0;
    after_return_ = false;
    in_space_ = false;
  }

  const Char* text_;
  std::size_t size_;
  std::size_t at_ = 0;
  unsigned mark_ = 0;          // `end` or `wide_end`, whichever is before the closing marks here
  std::size_t line_ends_ = 0;  // in the white space here
  bool after_return_ = false;
  bool in_space_ = false;
};

// Whether a word begins with the token at `start`, when the one ahead ends at `before` <= `start`.
// The spans ascend, so all calls together read the text once.
template <typename Char>
bool word_begins(const Char* text, std::size_t size, std::size_t before, std::size_t start) {
  for (std::size_t at = before == 0 ? 0 : before - 1; at < std::min(start + 1, size); ++at) {
    if (is_space(text[at])) {
      return true;
    }
  }
  if (before == 0 || start == size) {
    return false;
  }
  const unsigned last = kind_of(text[before - 1]);
  const unsigned first = kind_of(text[start]);
  return ((last | first) & unspaced) != 0 && (last & never_last) == 0 && (first & never_first) == 0;
}

}  // namespace chunking

// text: `size` code points; spans: start and end of each of `count` tokens, ascending, within the
// text; 0 <= overlap_tokens < max_tokens.
template <typename Char>
std::vector<Window> chunk(const Char* text, std::size_t size, const std::int32_t* spans,
                          std::size_t count, std::size_t max_tokens, std::size_t overlap_tokens) {
  // The last token up to each one at which a sentence, or a word, begins; 0 before the first.
  std::vector<std::size_t> last_sentence(count + 1, 0);
  std::vector<std::size_t> last_word(count + 1, 0);
  chunking::Reader<Char> reader(text, size);
  for (std::size_t i = 1; i < count; ++i) {
    const auto before = static_cast<std::size_t>(spans[2 * i - 1]);
    const auto start = static_cast<std::size_t>(spans[2 * i]);
    reader.advance(start);
    const bool sentence = start >= before && reader.sentence_begins();
    const bool word =
        sentence || (start >= before && chunking::word_begins(text, size, before, start));
    last_sentence[i] = sentence ? i : last_sentence[i - 1];
    last_word[i] = word ? i : last_word[i - 1];
  }
  last_sentence[count] = count;
  last_word[count] = count;
  std::vector<std::size_t> next_word(count + 1, count);
  for (std::size_t i = count; i-- > 0;) {
    next_word[i] = last_word[i] == i ? i : next_word[i + 1];
  }

  std::vector<Window> windows;
  std::size_t start = 0;
  std::size_t end = 0;
  while (end < count) {
    if (end > 0) {
      const std::size_t following = next_word[end + 1];
      std::size_t earliest = std::max(end - std::min(overlap_tokens, end), start + 1);
      if (following - end <= max_tokens) {
        earliest = std::max(earliest, following - std::min(max_tokens, following));
      }
      start = next_word[earliest] <= end ? next_word[earliest] : earliest;
    }
    if (count - start <= max_tokens) {
      end = count;
    } else {
      const std::size_t limit = start + max_tokens;
      if (last_sentence[limit] > std::max(end, start + max_tokens / 2)) {
        end = last_sentence[limit];
      } else {
        end = last_word[limit] > end ? last_word[limit] : limit;
      }
    }
    windows.push_back({static_cast<std::int64_t>(start), static_cast<std::int64_t>(end)});
  }
  return windows;
}

}  // namespace sprat
