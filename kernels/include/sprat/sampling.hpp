// Choosing the next token by chance; specified by sprat.kernels.reference.sample.
//
// Top-k, top-p and min-p each keep a prefix of the tokens in order of logit. So a filter is a
// border, found without sorting: pivots from a sorted sample bracket it, one pass sums what lies
// above and inside, and only the tokens inside are looked at again.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "sprat/isa.hpp"
#include "sprat/lanes.hpp"
#include "sprat/logits.hpp"

namespace sprat {

struct Filters {
  float temperature;
  std::int32_t top_k;
  float top_p;
  float min_p;
};

// A lower temperature has all its weight on the best token.
constexpr float greedy_below = 1e-6F;

// Tokens of a row: their logits and, in `places`, where they are in another array (null: here).
// Weights are there only for top-p.
struct Tokens {
  const float* logits = nullptr;
  const float* weights = nullptr;
  const std::int32_t* places = nullptr;
  std::size_t count = 0;

  std::size_t place(std::size_t i) const {
    return places == nullptr ? i : static_cast<std::size_t>(places[i]);
  }
};

// Where tokens are copied to. A copy may go over its own source, for it never overtakes.
struct Target {
  float* logits;
  float* weights;
  std::int32_t* places;
};

// A copy of the tokens from `begin` to `end` with logits in [low, high], in their order, to the
// place `out` of the target; returns the end of it. Writes up to 7 elements more.
inline std::size_t copy_between_baseline(const Tokens& from, std::size_t begin, std::size_t end,
                                         float low, float high, const Target& to, std::size_t out) {
  for (std::size_t i = begin; i < end; ++i) {
    const float logit = from.logits[i];
    to.places[out] = static_cast<std::int32_t>(from.place(i));
    to.logits[out] = logit;
    if (from.weights != nullptr) {
      to.weights[out] = from.weights[i];
    }
    out += static_cast<std::size_t>(logit >= low) & static_cast<std::size_t>(logit <= high);
  }
  return out;
}

#if defined(__x86_64__)

// For each set of lanes, their numbers in order.
struct Gathers {
  std::array<std::array<std::uint8_t, 8>, 256> numbers{};

  constexpr Gathers() {
    for (std::size_t set = 0; set < 256; ++set) {
      std::size_t count = 0;
      for (std::size_t lane = 0; lane < 8; ++lane) {
        if (((set >> lane) & 1U) != 0) {
          numbers[set][count++] = static_cast<std::uint8_t>(lane);
        }
      }
    }
  }
};

// 3.5 times as fast as the plain loop when it copies all, 20 times when it copies little.
SPRAT_AVX2 inline std::size_t copy_between_avx2(const Tokens& from, std::size_t begin,
                                                std::size_t end, float low, float high,
                                                const Target& to, std::size_t out) {
  static constexpr Gathers gathers;
  const __m256 lows = _mm256_set1_ps(low);
  const __m256 highs = _mm256_set1_ps(high);
  const __m256i counting = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  std::size_t i = begin;
  for (; i + 8 <= end; i += 8) {
    const __m256 logits = _mm256_loadu_ps(from.logits + i);
    const __m256 inside = _mm256_and_ps(_mm256_cmp_ps(logits, lows, _CMP_GE_OQ),
                                        _mm256_cmp_ps(logits, highs, _CMP_LE_OQ));
    const auto set = static_cast<unsigned>(_mm256_movemask_ps(inside));
    if (set == 0) {
      continue;
    }
    const __m256i order = _mm256_cvtepu8_epi32(
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(gathers.numbers[set].data())));
    const __m256i places =
        from.places == nullptr
            ? _mm256_add_epi32(_mm256_set1_epi32(static_cast<int>(i)), counting)
            : _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from.places + i));
    if (from.weights != nullptr) {
      _mm256_storeu_ps(to.weights + out,
                       _mm256_permutevar8x32_ps(_mm256_loadu_ps(from.weights + i), order));
    }
    _mm256_storeu_ps(to.logits + out, _mm256_permutevar8x32_ps(logits, order));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.places + out),
                        _mm256_permutevar8x32_epi32(places, order));
    out += static_cast<std::size_t>(__builtin_popcount(set));
  }
  return copy_between_baseline(from, i, end, low, high, to, out);
}

#endif

inline Tokens copied_between(const Tokens& from, float low, float high, const Target& to, Isa isa) {
  const std::size_t count =
      SPRAT_DISPATCH(isa, copy_between, (from, 0, from.count, low, high, to, 0));
  return {to.logits, from.weights == nullptr ? nullptr : to.weights, to.places, count};
}

// What lies above `high`, and what from `low` on.
struct Masses {
  double above = 0.0;
  double reached = 0.0;
};

// Sums of weights, or counts, of tokens with logits > high and with logits >= low.
template <typename L, bool weighted>
SPRAT_INLINE Masses masses_of(const float* logits, const float* weights, std::size_t count,
                              float high, float low) {
  Masses masses;
  for (std::size_t begin = 0; begin < count; begin += block) {
    const std::size_t end = std::min(count, begin + block);
    typename L::Floats above = {};
    typename L::Floats reached = {};
    std::size_t i = begin;
    for (; i + L::size <= end; i += L::size) {
      typename L::Floats l;
      typename L::Floats w = typename L::Floats{} + 1.0F;
      L::load(logits + i, l);
      if (weighted) {
        L::load(weights + i, w);
      }
      above += l > high ? w : typename L::Floats{};
      reached += l >= low ? w : typename L::Floats{};
    }
    masses.above += L::sum(above);
    masses.reached += L::sum(reached);
    for (; i < end; ++i) {
      const double w = weighted ? weights[i] : 1.0F;
      masses.above += logits[i] > high ? w : 0.0;
      masses.reached += logits[i] >= low ? w : 0.0;
    }
  }
  return masses;
}

template <typename L>
SPRAT_INLINE Masses weigh_parts_body(const Tokens& tokens, float high, float low) {
  return masses_of<L, true>(tokens.logits, tokens.weights, tokens.count, high, low);
}
SPRAT_VARIANTS(Masses, weigh_parts, (const Tokens& tokens, float high, float low),
               (tokens, high, low))

template <typename L>
SPRAT_INLINE Masses count_parts_body(const Tokens& tokens, float high, float low) {
  return masses_of<L, false>(tokens.logits, nullptr, tokens.count, high, low);
}
SPRAT_VARIANTS(Masses, count_parts, (const Tokens& tokens, float high, float low),
               (tokens, high, low))

// The last token that a filter keeps: those of greater logit stay, and of equal ones those up to
// its place.
struct Border {
  float logit = lowest;
  std::size_t place = std::numeric_limits<std::size_t>::max();

  bool keeps_less_than(const Border& other) const {
    return logit > other.logit || (logit == other.logit && place < other.place);
  }
};

struct Pivots {
  float high;
  float low;
};

// Two logits, mostly on either side of the border: from a sample, at a distance of three standard
// deviations. Only logits from `floor` on can be the border. One of the two is a token's logit or
// `floor`.
inline Pivots pivots(const Tokens& tokens, double share, float floor) {
  constexpr std::size_t most = 256;
  constexpr std::size_t least = 32;
  struct Sampled {
    float logit;
    float weight;
  };
  std::array<Sampled, most> sample;
  std::size_t size = 0;
  double mass = 0.0;
  for (std::size_t s = 0; s < most; ++s) {
    const std::size_t i = s * tokens.count / most;
    const float logit = tokens.logits[i];
    if (logit >= floor) {
      const float weight = tokens.weights == nullptr ? 1.0F : tokens.weights[i];
      sample[size++] = {logit, weight};
      mass += weight;
    }
  }
  if (size < least) {
    return {-lowest, floor};
  }
  const auto first = sample.begin();
  const auto end = first + static_cast<std::ptrdiff_t>(size);
  const auto greater = [](const Sampled& a, const Sampled& b) { return a.logit > b.logit; };
  std::size_t rank = 0;
  if (tokens.weights == nullptr) {
    rank = std::min(size - 1, static_cast<std::size_t>(share * static_cast<double>(size)));
  } else {
    std::sort(first, end, greater);
    for (double reached = first->weight; rank + 1 < size && reached < share * mass;) {
      reached += sample[++rank].weight;
    }
  }
  const double part = static_cast<double>(rank) / static_cast<double>(size);
  const auto distance =
      static_cast<std::size_t>(2.0 + 3.0 * std::sqrt(part * static_cast<double>(size - rank)));
  Pivots found = {-lowest, floor};
  auto unordered = first;
  if (rank >= distance) {
    const auto high = first + static_cast<std::ptrdiff_t>(rank - distance);
    if (tokens.weights == nullptr) {
      std::nth_element(first, high, end, greater);
      unordered = high + 1;
    }
    found.high = high->logit;
  }
  if (rank + distance < size) {
    const auto low = first + static_cast<std::ptrdiff_t>(rank + distance);
    if (tokens.weights == nullptr) {
      std::nth_element(unordered, low, end, greater);
    }
    found.low = low->logit;
  }
  return found;
}

// The border of the shortest prefix, in order of logit and place, whose weight (without weights:
// count) reaches `goal` > 0; `total` is that of all tokens.
inline Border border_at(Tokens tokens, double goal, double total, float floor,
                        const Target& scratch, Isa isa) {
  constexpr std::size_t few = 128;
  constexpr int most_rounds = 24;  // Against input that defeats the samples.
  const bool weighted = tokens.weights != nullptr;
  bool tied = false;
  for (int round = 0; !tied && tokens.count > few && round < most_rounds; ++round) {
    const auto [high, low] = pivots(tokens, goal / total, floor);
    const Masses masses = weighted ? SPRAT_DISPATCH(isa, weigh_parts, (tokens, high, low))
                                   : SPRAT_DISPATCH(isa, count_parts, (tokens, high, low));
    float from = low;
    float to = high;
    if (masses.above >= goal) {
      from = std::nextafter(high, -lowest);
      to = -lowest;
      total = masses.above;
    } else if (masses.reached < goal) {
      if (low == floor) {
        return {floor};  // Rounded sums: all of them stay.
      }
      from = floor;
      to = std::nextafter(low, lowest);
      goal -= masses.reached;
      total -= masses.reached;
    } else {
      goal -= masses.above;
      total = masses.reached - masses.above;
    }
    tokens = copied_between(tokens, from, to, scratch, isa);
    floor = from;
    tied = from == to;
  }
  if (tokens.places == nullptr) {
    tokens = copied_between(tokens, floor, -lowest, scratch, isa);
  }
  std::vector<std::size_t> order(tokens.count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (!tied) {
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return tokens.logits[a] > tokens.logits[b] || (tokens.logits[a] == tokens.logits[b] && a < b);
    });
  }
  Border border = {floor};
  double reached = 0.0;
  for (auto i = order.begin(); i != order.end() && reached < goal; ++i) {
    border = {tokens.logits[*i], tokens.place(*i)};
    reached += weighted ? tokens.weights[*i] : 1.0F;
  }
  return border;
}

// What a border keeps, with the places in `tokens`.
inline Tokens copied_within(const Tokens& tokens, const Border& border, const Target& to, Isa isa) {
  const std::size_t split = border.place < tokens.count ? border.place + 1 : tokens.count;
  const float high = -lowest;
  const float beyond = std::nextafter(border.logit, high);
  std::size_t count =
      SPRAT_DISPATCH(isa, copy_between, (tokens, 0, split, border.logit, high, to, 0));
  count = SPRAT_DISPATCH(isa, copy_between, (tokens, split, tokens.count, beyond, high, to, count));
  return {to.logits, nullptr, to.places, count};
}

template <typename L>
SPRAT_INLINE double weigh_all_body(const Tokens& tokens, float best, float scale, float* weights,
                                   double* sums) {
  return weigh<L, true, true>(tokens.logits, tokens.count, best, scale, weights, sums);
}
SPRAT_VARIANTS(double, weigh_all,
               (const Tokens& tokens, float best, float scale, float* weights, double* sums),
               (tokens, best, scale, weights, sums))

// The first token at which the running sum of weights exceeds `goal`, or the last one with weight.
inline std::size_t drawn(const float* weights, const double* sums, std::size_t count, double goal) {
  double reached = 0.0;
  double before = 0.0;
  std::size_t found = 0;
  for (std::size_t begin = 0; begin < count; begin += block) {
    const double after = reached + sums[begin / block];
    if (after > reached) {
      found = begin;
      before = reached;
      if (after > goal) {
        break;
      }
    }
    reached = after;
  }
  const std::size_t end = std::min(count, found + block);
  for (std::size_t i = found; i < end && before <= goal; ++i) {
    if (weights[i] > 0.0F) {
      found = i;
      before += weights[i];
    }
  }
  return found;
}

// Samples rows of up to `width` logits; holds what that needs of memory.
class Sampler {
 public:
  Sampler(std::size_t width, Isa isa)
      : width_(width),
        isa_(isa),
        stride_(width + 8),
        floats_(new float[5 * stride_]),
        places_(new std::int32_t[2 * stride_]),
        sums_(new double[width / block + 1]) {}

  Fault sample(const float* logits, const std::int32_t* mask, std::size_t words,
               const Filters& filters, double coin, std::int32_t& token) {
    if (filters.temperature < greedy_below) {
      return argmax(logits, mask, words, width_, isa_, token);
    }
    Peak peak;
    Tokens all;
    all.count = width_;
    all.logits = logits;
    if (mask == nullptr) {
      peak = SPRAT_DISPATCH(isa_, peak_free, (logits, width_));
    } else {
      float* allowed = row(0);
      all.logits = allowed;
      all.count = std::min(width_, words * word_bits);
      peak = SPRAT_DISPATCH(isa_, peak_kept, (logits, mask, all.count, allowed));
    }
    if (peak.fault == Fault::none) {
      token = static_cast<std::int32_t>(choose(all, peak.value, filters, coin));
    }
    return peak.fault;
  }

 private:
  float* row(std::size_t number) { return floats_.get() + number * stride_; }

  std::size_t choose(const Tokens& all, float best, const Filters& filters, double coin) {
    const Target scratch = {row(2), row(3), places_.get()};
    const Target kept = {row(4), nullptr, places_.get() + stride_};
    float* weights = row(1);
    Tokens tokens = all;
    if (filters.top_k > 0 && static_cast<std::size_t>(filters.top_k) < all.count) {
      const auto goal = static_cast<double>(filters.top_k);
      const auto count = static_cast<double>(all.count);
      // Mostly few tokens are left to look at.
      const float low = pivots(all, goal / count, lowest).low;
      Tokens some = copied_between(all, low, -lowest, kept, isa_);
      if (some.count < static_cast<std::size_t>(filters.top_k)) {
        some = copied_between(all, lowest, -lowest, kept, isa_);
      }
      const Tokens here = {some.logits, nullptr, nullptr, some.count};
      const auto left = static_cast<double>(some.count);
      tokens = copied_within(some, border_at(here, goal, left, lowest, scratch, isa_), kept, isa_);
    }
    Border border;
    if (filters.top_p < 1.0F) {
      Tokens weighed = {tokens.logits, weights, nullptr, tokens.count};
      const double total =
          SPRAT_DISPATCH(isa_, weigh_all, (weighed, best, 1.0F, weights, sums_.get()));
      // All that weigh less than this together lack what top-p leaves out.
      const double spare = (1.0 - static_cast<double>(filters.top_p)) * total;
      const double least = 0.999 * spare / static_cast<double>(tokens.count);
      const auto floor = static_cast<float>(static_cast<double>(best) + std::log(least));
      border = border_at(weighed, static_cast<double>(filters.top_p) * total, total, floor, scratch,
                         isa_);
    }
    if (filters.min_p > 0.0F) {
      const double distance = std::log(static_cast<double>(filters.min_p));
      const Border least = {static_cast<float>(static_cast<double>(best) + distance)};
      border = least.keeps_less_than(border) ? least : border;
    }
    Tokens last = tokens;
    if (border.logit > lowest) {
      last = copied_within({tokens.logits, nullptr, nullptr, tokens.count}, border,
                           {row(2), nullptr, places_.get()}, isa_);
    }
    const double total = SPRAT_DISPATCH(
        isa_, weigh_all, (last, best, 1.0F / filters.temperature, weights, sums_.get()));
    std::size_t place = drawn(weights, sums_.get(), last.count, coin * total);
    if (border.logit > lowest) {
      place = last.place(place);
    }
    return tokens.place(place);
  }

  std::size_t width_;
  Isa isa_;
  std::size_t stride_;
  std::unique_ptr<float[]> floats_;
  std::unique_ptr<std::int32_t[]> places_;
  std::unique_ptr<double[]> sums_;
};

}  // namespace sprat
