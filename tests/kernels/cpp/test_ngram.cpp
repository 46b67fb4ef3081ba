#include "sprat/ngram.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"

namespace {

using Tokens = std::vector<std::int32_t>;

Tokens expected(const Tokens& tokens, std::size_t min_n, std::size_t max_n, std::size_t most) {
  for (std::size_t n = max_n; n >= min_n; --n) {
    for (std::size_t end = tokens.size(); end-- > n;) {
      if (n < tokens.size() &&
          std::equal(tokens.end() - static_cast<std::ptrdiff_t>(n), tokens.end(),
                     tokens.begin() + static_cast<std::ptrdiff_t>(end - n))) {
        const std::size_t last = std::min(end + most, tokens.size());
        return {tokens.begin() + static_cast<std::ptrdiff_t>(end),
                tokens.begin() + static_cast<std::ptrdiff_t>(last)};
      }
    }
  }
  return {};
}

Tokens drafted(const sprat::NgramIndex& index, std::size_t most) {
  const auto [first, last] = index.draft(most);
  return {index.tokens() + first, index.tokens() + last};
}

void drafts_what_a_search_finds() {
  std::mt19937 random(5);
  for (const std::size_t min_n : {1, 2, 3}) {
    for (const std::size_t max_n : {3, 5, 64}) {
      for (const std::uint32_t kinds : {1U, 2U, 3U, 1000U}) {
        sprat::NgramIndex index(min_n, max_n, random());
        Tokens tokens;
        while (tokens.size() < 200) {
          Tokens piece(random() % 4);
          for (std::int32_t& token : piece) {
            token = static_cast<std::int32_t>(random() % kinds);
          }
          index.append(piece.data(), piece.size());
          tokens.insert(tokens.end(), piece.begin(), piece.end());
          CHECK(index.size() == tokens.size());
          CHECK(drafted(index, 7) == expected(tokens, min_n, max_n, 7));
        }
      }
    }
  }
}

void takes_extreme_tokens() {
  const Tokens tokens = {
      std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max(), -1, 0,
      std::numeric_limits<std::int32_t>::min(), std::numeric_limits<std::int32_t>::max()};
  sprat::NgramIndex index(2, 2, std::numeric_limits<std::uint64_t>::max());
  index.append(tokens.data(), tokens.size());
  CHECK((drafted(index, 2) == Tokens{-1, 0}));
}

// All n-grams of two out of 40 tokens, under the same hash.
void collisions_never_give_another_answer() {
  Tokens tokens;
  for (std::int32_t a = 0; a < 40; ++a) {
    for (std::int32_t b = 0; b < 40; ++b) {
      tokens.insert(tokens.end(), {a, b});
    }
  }
  sprat::NgramTable table(2);
  std::vector<std::uint32_t> last(1600, 0);
  for (std::uint32_t end = 2; end < tokens.size(); ++end) {
    const auto gram = static_cast<std::size_t>(tokens[end - 2] * 40 + tokens[end - 1]);
    CHECK(table.find(7, tokens.data(), &tokens[end - 2]) == last[gram]);
    table.reserve(1);
    table.put(7, tokens.data(), end);
    last[gram] = end;
    CHECK(table.find(7, tokens.data(), &tokens[end - 2]) == end);
  }
}

// The hash depends on the last n tokens and on nothing before them.
void rolls() {
  for (const std::uint64_t seed : {0U, 1U, 99U}) {
    const std::uint64_t base = sprat::RollingHash::base(seed);
    sprat::RollingHash rolled(3, base);
    for (const std::int32_t token : {9, 8, 7}) {
      rolled.roll(token);
    }
    rolled.roll(1, 9);
    rolled.roll(2, 8);
    rolled.roll(3, 7);
    sprat::RollingHash fresh(3, base);
    for (const std::int32_t token : {1, 2, 3}) {
      fresh.roll(token);
    }
    CHECK(rolled.bits() == fresh.bits());
  }
  CHECK(sprat::RollingHash::base(0) != sprat::RollingHash::base(1));
}

}  // namespace

int main() {
  drafts_what_a_search_finds();
  takes_extreme_tokens();
  collisions_never_give_another_answer();
  rolls();
  return 0;
}
