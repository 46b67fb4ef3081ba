// Lookup of n-grams for drafts from the prompt; specified by sprat.kernels.reference.NgramIndex.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace sprat {

// The most recent end of each n-gram of one length, by hash, with linear probing. What the tokens
// say decides: a collision costs a probe and nothing else.
class NgramTable {
 public:
  explicit NgramTable(std::size_t n) : n_(n) {}

  // Makes room for so many more n-grams; until then `put` does not allocate.
  void reserve(std::size_t more) {
    const std::size_t needed = used_ + more;
    if (needed * 4 <= slots_.size() * 3) {
      return;
    }
    std::size_t size = std::max<std::size_t>(16, slots_.size());
    while (needed * 4 > size * 3) {
      size *= 2;
    }
    std::vector<Slot> wider(size);
    for (const Slot& slot : slots_) {
      if (slot.end != 0) {
        std::size_t at = slot.hash & (size - 1);
        while (wider[at].end != 0) {
          at = (at + 1) & (size - 1);
        }
        wider[at] = slot;
      }
    }
    slots_ = std::move(wider);
  }

  // Notes that the n-gram with this hash in front of `end` >= n has occurred.
  void put(std::uint32_t hash, const std::int32_t* tokens, std::uint32_t end) {
    Slot& slot = slots_[place(hash, tokens, tokens + end - n_)];
    used_ += slot.end == 0 ? 1 : 0;
    slot = {hash, end};
  }

  // Where the n-gram at `key`, with this hash, ended last; 0 when it has not occurred.
  std::uint32_t find(std::uint32_t hash, const std::int32_t* tokens,
                     const std::int32_t* key) const {
    return slots_.empty() ? 0 : slots_[place(hash, tokens, key)].end;
  }

 private:
  struct Slot {
    std::uint32_t hash;
    std::uint32_t end;  // 0 in an empty slot
  };

  // The slot of an n-gram, or the empty one where it belongs. A quarter of the slots is empty.
  std::size_t place(std::uint32_t hash, const std::int32_t* tokens, const std::int32_t* key) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = hash & mask;
    while (slots_[at].end != 0 &&
           !(slots_[at].hash == hash && std::equal(key, key + n_, tokens + slots_[at].end - n_))) {
      at = (at + 1) & mask;
    }
    return at;
  }

  std::size_t n_;
  std::vector<Slot> slots_;  // none, or a power of two
  std::size_t used_ = 0;
};

// Rolling hash of the last n tokens: a polynomial modulo the prime 2^61 - 1. For a base that is
// drawn at random, whoever chose the tokens collides with probability n / 2^61.
class RollingHash {
 public:
  RollingHash(std::size_t n, std::uint64_t base) : base_(base) {
    for (; n > 0; --n) {
      power_ = times(power_, base);
    }
  }

  // A token comes in. The one n before it, if there is one, goes out.
  void roll(std::int32_t token, std::int32_t old) {
    roll(token);
    value_ = minus(value_, times(power_, digit(old)));
  }
  void roll(std::int32_t token) { value_ = plus(times(value_, base_), digit(token)); }

  std::uint32_t bits() const {
    return static_cast<std::uint32_t>((value_ * 0x9E3779B97F4A7C15U) >> 32);
  }

  // A base in [2, 2^61 - 1) from any seed (the finalizer of SplitMix64).
  static std::uint64_t base(std::uint64_t seed) {
    seed += 0x9E3779B97F4A7C15U;
    seed = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9U;
    seed = (seed ^ (seed >> 27)) * 0x94D049BB133111EBU;
    return 2 + (seed ^ (seed >> 31)) % (prime - 2);
  }

 private:
  __extension__ using Wide = unsigned __int128;
  static constexpr std::uint64_t prime = (std::uint64_t{1} << 61) - 1;

  static std::uint64_t digit(std::int32_t token) {
    return std::uint64_t{1} + static_cast<std::uint32_t>(token);
  }
  static std::uint64_t plus(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t sum = a + b;
    return sum >= prime ? sum - prime : sum;
  }
  static std::uint64_t minus(std::uint64_t a, std::uint64_t b) {
    return a >= b ? a - b : a + prime - b;
  }
  static std::uint64_t times(std::uint64_t a, std::uint64_t b) {
    const Wide product = static_cast<Wide>(a) * b;
    return plus(static_cast<std::uint64_t>(product) & prime,
                static_cast<std::uint64_t>(product >> 61));
  }

  std::uint64_t base_;
  std::uint64_t power_ = 1;  // base to the n: what the token that goes out counts
  std::uint64_t value_ = 0;
};

// 1 <= min_n <= max_n; fewer than 2^32 tokens.
class NgramIndex {
 public:
  NgramIndex() : NgramIndex(1, 1, 0) {}
  NgramIndex(std::size_t min_n, std::size_t max_n, std::uint64_t seed) {
    const std::uint64_t base = RollingHash::base(seed);
    levels_.reserve(max_n - min_n + 1);
    for (std::size_t n = max_n; n >= min_n; --n) {
      levels_.push_back({n, RollingHash(n, base), NgramTable(n)});
    }
  }

  std::size_t size() const { return tokens_.size(); }
  const std::int32_t* tokens() const { return tokens_.data(); }

  // Allocates before it changes anything: when memory runs out, the index is as it was.
  void append(const std::int32_t* tokens, std::size_t count) {
    const std::size_t needed = tokens_.size() + count;
    if (needed > tokens_.capacity()) {
      tokens_.reserve(std::max(needed, tokens_.size() * 2));
    }
    for (Level& level : levels_) {
      level.table.reserve(count);
    }
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t end = tokens_.size();
      tokens_.push_back(tokens[i]);
      for (Level& level : levels_) {
        if (end < level.n) {
          level.hash.roll(tokens[i]);
        } else {  // The n-gram before this token has a continuation now.
          level.table.put(level.hash.bits(), tokens_.data(), static_cast<std::uint32_t>(end));
          level.hash.roll(tokens[i], tokens_[end - level.n]);
        }
      }
    }
  }

  // The draft, as the range [first, last) of `tokens`; empty when there is none.
  std::pair<std::size_t, std::size_t> draft(std::size_t max_tokens) const {
    const std::size_t held = tokens_.size();
    for (const Level& level : levels_) {
      if (level.n < held) {
        const std::size_t end =
            level.table.find(level.hash.bits(), tokens_.data(), tokens_.data() + held - level.n);
        if (end != 0) {
          return {end, end + std::min(max_tokens, held - end)};
        }
      }
    }
    return {0, 0};
  }

 private:
  struct Level {
    std::size_t n;
    RollingHash hash;  // of the last n tokens
    NgramTable table;  // of the n-grams that a token follows
  };

  std::vector<std::int32_t> tokens_;
  std::vector<Level> levels_;  // from the longest n-gram to the shortest
};

}  // namespace sprat
