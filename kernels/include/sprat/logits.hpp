// Logits of the next token: what is allowed, what is weakened, which is best and how probable each
// is; specified by sprat.kernels.reference.logits.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "sprat/isa.hpp"
#include "sprat/lanes.hpp"

namespace sprat {

// Bits of a word of a mask, the lowest for the first of its tokens.
constexpr std::size_t word_bits = 32;

// Tokens whose weights are summed in float before the sum becomes double: short enough for float.
constexpr std::size_t block = 256;

enum class Fault { none, nan, infinite, nothing };

// Puts -infinity where the bits from `shift` on are not set.
template <typename L>
SPRAT_INLINE void forbid(std::int32_t word, std::size_t shift, typename L::Floats& logits) {
  typename L::Ints bits = {};
  for (std::size_t lane = 0; lane < L::size; ++lane) {
    bits[lane] = 1 << lane;
  }
  const auto first = static_cast<std::int32_t>(static_cast<std::uint32_t>(word) >> shift);
  const typename L::Ints allowed = (bits & first) == bits;
  logits = allowed ? logits : typename L::Floats{} + lowest;
}

template <typename L>
SPRAT_INLINE void mask_body(const std::int32_t* mask, std::size_t width, float* logits) {
  for (std::size_t first = 0; first < width; first += word_bits) {
    const std::int32_t word = mask[first / word_bits];
    const std::size_t count = std::min(word_bits, width - first);
    if (word == 0) {
      std::fill_n(logits + first, count, lowest);
    } else if (word != -1) {
      std::size_t shift = 0;
      typename L::Floats v;
      for (; shift + L::size <= count; shift += L::size) {
        L::load(logits + first + shift, v);
        forbid<L>(word, shift, v);
        L::store(v, logits + first + shift);
      }
      if (shift < count) {
        L::load(logits + first + shift, count - shift, v);
        forbid<L>(word, shift, v);
        L::store(v, count - shift, logits + first + shift);
      }
    }
  }
}
SPRAT_VARIANTS(void, mask, (const std::int32_t* mask, std::size_t width, float* logits),
               (mask, width, logits))

// One row: -infinity for tokens whose bit is not set, and for those beyond the mask.
inline void mask_logits(const std::int32_t* mask, std::size_t words, std::size_t width,
                        float* logits, Isa isa) {
  const std::size_t covered = std::min(width, words * word_bits);
  SPRAT_DISPATCH(isa, mask, (mask, covered, logits));
  std::fill(logits + covered, logits + width, lowest);
}

inline void bias_logits(const std::int32_t* ids, const float* biases, std::size_t count,
                        float* logits) {
  for (std::size_t i = 0; i < count; ++i) {
    logits[ids[i]] += biases[i];
  }
}

struct Penalties {
  float repeat;
  float frequency;
  float presence;
};

// Weakens each token of `recent` once, by how often it is there.
inline void penalize_logits(std::vector<std::int32_t> recent, const Penalties& penalties,
                            float* logits) {
  std::sort(recent.begin(), recent.end());
  for (auto run = recent.begin(); run != recent.end();) {
    const auto end = std::upper_bound(run, recent.end(), *run);
    float& logit = logits[*run];
    logit = logit > 0.0F ? logit / penalties.repeat : logit * penalties.repeat;
    logit -= static_cast<float>(end - run) * penalties.frequency + penalties.presence;
    run = end;
  }
}

struct Peak {
  float value = lowest;
  std::size_t at = 0;  // The first token of the block in which the value comes first.
  Fault fault = Fault::none;
};

// The greatest of the allowed logits of a row; with `keep`, also copies them to `kept`, with
// -infinity for the others. `mask` covers `width`.
template <typename L, bool masked, bool keep>
SPRAT_INLINE void find_peak(const float* logits, const std::int32_t* mask, std::size_t width,
                            float* kept, Peak& peak) {
  constexpr std::size_t parts = word_bits / L::size;
  typename L::Ints nan = {};
  for (std::size_t begin = 0; begin < width; begin += block) {
    const std::size_t end = std::min(width, begin + block);
    typename L::Floats most[parts];
    for (auto& v : most) {
      v = typename L::Floats{} + lowest;
    }
    std::size_t first = begin;
    for (; first + word_bits <= end; first += word_bits) {
      const std::int32_t word = masked ? mask[first / word_bits] : -1;
      if (masked && word == 0) {
        if (keep) {
          std::fill_n(kept + first, word_bits, lowest);
        }
        continue;
      }
      for (std::size_t part = 0; part < parts; ++part) {
        typename L::Floats v;
        L::load(logits + first + part * L::size, v);
        if (masked) {
          forbid<L>(word, part * L::size, v);
        }
        if (keep) {
          L::store(v, kept + first + part * L::size);
        }
        nan |= v != v;
        most[part] = v > most[part] ? v : most[part];
      }
    }
    for (; first < end; first += L::size) {
      const std::size_t count = std::min(L::size, end - first);
      typename L::Floats v;
      L::load(logits + first, count, v);
      if (masked) {
        forbid<L>(mask[first / word_bits], first % word_bits, v);
      }
      if (keep) {
        L::store(v, count, kept + first);
      }
      nan |= v != v;
      most[0] = v > most[0] ? v : most[0];
    }
    for (std::size_t part = 1; part < parts; ++part) {
      most[0] = most[part] > most[0] ? most[part] : most[0];
    }
    const float value = L::greatest(most[0]);
    if (value > peak.value) {
      peak.value = value;
      peak.at = begin;
    }
  }
  if (L::any(nan)) {
    peak.fault = Fault::nan;
  } else if (peak.value > std::numeric_limits<float>::max()) {
    peak.fault = Fault::infinite;
  } else if (peak.value == lowest) {
    peak.fault = Fault::nothing;
  }
}

template <typename L>
SPRAT_INLINE Peak peak_free_body(const float* logits, std::size_t width) {
  Peak peak;
  find_peak<L, false, false>(logits, nullptr, width, nullptr, peak);
  return peak;
}
SPRAT_VARIANTS(Peak, peak_free, (const float* logits, std::size_t width), (logits, width))

template <typename L>
SPRAT_INLINE Peak peak_masked_body(const float* logits, const std::int32_t* mask,
                                   std::size_t width) {
  Peak peak;
  find_peak<L, true, false>(logits, mask, width, nullptr, peak);
  return peak;
}
SPRAT_VARIANTS(Peak, peak_masked,
               (const float* logits, const std::int32_t* mask, std::size_t width),
               (logits, mask, width))

template <typename L>
SPRAT_INLINE Peak peak_kept_body(const float* logits, const std::int32_t* mask, std::size_t width,
                                 float* kept) {
  Peak peak;
  find_peak<L, true, true>(logits, mask, width, kept, peak);
  return peak;
}
SPRAT_VARIANTS(Peak, peak_kept,
               (const float* logits, const std::int32_t* mask, std::size_t width, float* kept),
               (logits, mask, width, kept))

inline bool allows(const std::int32_t* mask, std::size_t token) {
  return mask == nullptr ||
         ((static_cast<std::uint32_t>(mask[token / word_bits]) >> (token % word_bits)) & 1U) != 0;
}

// The first allowed token that has the peak's value.
inline std::size_t first_at(const float* logits, const std::int32_t* mask, std::size_t width,
                            const Peak& peak) {
  const std::size_t end = std::min(width, peak.at + block);
  for (std::size_t token = peak.at; token < end; ++token) {
    if (logits[token] == peak.value && allows(mask, token)) {
      return token;
    }
  }
  return peak.at;  // Somebody else writes to the logits meanwhile.
}

// The best token of a row that the mask, if there is one, allows.
inline Fault argmax(const float* logits, const std::int32_t* mask, std::size_t words,
                    std::size_t width, Isa isa, std::int32_t& best) {
  if (mask != nullptr) {
    width = std::min(width, words * word_bits);
  }
  const Peak peak = mask == nullptr ? SPRAT_DISPATCH(isa, peak_free, (logits, width))
                                    : SPRAT_DISPATCH(isa, peak_masked, (logits, mask, width));
  if (peak.fault == Fault::none) {
    best = static_cast<std::int32_t>(first_at(logits, mask, width, peak));
  }
  return peak.fault;
}

// The sum of e^((l - best) scale) over a row; with `keep`, also each of these weights, and the sum
// of those of each block.
template <typename L, bool scaled, bool keep>
SPRAT_INLINE double weigh(const float* logits, std::size_t width, float best, float scale,
                          float* weights, double* sums) {
  constexpr std::size_t chains = 4;
  double total = 0.0;
  for (std::size_t begin = 0; begin < width; begin += block) {
    const std::size_t end = std::min(width, begin + block);
    typename L::Floats partial[chains] = {};
    std::size_t i = begin;
    for (; i + chains * L::size <= end; i += chains * L::size) {
      for (std::size_t chain = 0; chain < chains; ++chain) {
        typename L::Floats v;
        L::load(logits + i + chain * L::size, v);
        v = scaled ? (v - best) * scale : v - best;
        L::exp(v);
        if (keep) {
          L::store(v, weights + i + chain * L::size);
        }
        partial[chain] += v;
      }
    }
    for (; i < end; i += L::size) {
      const std::size_t count = std::min(L::size, end - i);
      typename L::Floats v;
      L::load(logits + i, count, v);
      v = scaled ? (v - best) * scale : v - best;
      L::exp(v);
      if (keep) {
        L::store(v, count, weights + i);
      }
      partial[0] += v;
    }
    const double sum_of_block = L::sum((partial[0] + partial[1]) + (partial[2] + partial[3]));
    if (keep) {
      sums[begin / block] = sum_of_block;
    }
    total += sum_of_block;
  }
  return total;
}

template <typename L>
SPRAT_INLINE double total_weight_body(const float* logits, std::size_t width, float best) {
  return weigh<L, false, false>(logits, width, best, 1.0F, nullptr, nullptr);
}
SPRAT_VARIANTS(double, total_weight, (const float* logits, std::size_t width, float best),
               (logits, width, best))

// The log-probabilities of some tokens of a row: a pass for the greatest logit, one for the
// weights. Both in one, a part that fits the first cache at a time, took 1.2 to 1.5 times as long.
inline Fault log_softmax(const float* logits, std::size_t width, const std::int32_t* ids,
                         std::size_t count, Isa isa, float* log_probabilities) {
  const Peak peak = SPRAT_DISPATCH(isa, peak_free, (logits, width));
  if (peak.fault == Fault::none) {
    const double log_total =
        std::log(SPRAT_DISPATCH(isa, total_weight, (logits, width, peak.value)));
    for (std::size_t i = 0; i < count; ++i) {
      const double above = static_cast<double>(logits[ids[i]]) - static_cast<double>(peak.value);
      log_probabilities[i] = static_cast<float>(above - log_total);
    }
  }
  return peak.fault;
}

}  // namespace sprat
