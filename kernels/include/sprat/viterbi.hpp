// The best sequence of tags; specified by sprat.kernels.reference.viterbi.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "sprat/isa.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sprat {

// best[j] = the greatest of scores[i] + transitions[i][j]; NaN never is. transitions: [tags,
// width].
inline void best_steps(const float* scores, const float* transitions, std::size_t tags,
                       std::size_t width, float* best) {
  std::fill_n(best, width, -std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < tags; ++i) {
    const float score = scores[i];
    const float* row = transitions + i * width;
    for (std::size_t j = 0; j < width; ++j) {
      const float candidate = score + row[j];
      best[j] = candidate > best[j] ? candidate : best[j];
    }
  }
}

#if defined(__x86_64__)
template <std::size_t vectors>
SPRAT_AVX2 void best_columns(const float* scores, const float* transitions, std::size_t tags,
                             std::size_t width, std::size_t first, float* best) {
  __m256 most[vectors];
  for (std::size_t v = 0; v < vectors; ++v) {
    most[v] = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  }
  for (std::size_t i = 0; i < tags; ++i) {
    const __m256 score = _mm256_set1_ps(scores[i]);
    const float* row = transitions + i * width + first;
    for (std::size_t v = 0; v < vectors; ++v) {
      // Where one of two is NaN, the instruction takes the second.
      most[v] = _mm256_max_ps(_mm256_add_ps(score, _mm256_loadu_ps(row + 8 * v)), most[v]);
    }
  }
  for (std::size_t v = 0; v < vectors; ++v) {
    _mm256_storeu_ps(best + first + 8 * v, most[v]);
  }
}

// For a width that is a multiple of 8.
SPRAT_AVX2 inline void best_steps_avx2(const float* scores, const float* transitions,
                                       std::size_t tags, std::size_t width, float* best) {
  std::size_t j = 0;
  for (; j + 64 <= width; j += 64) {
    best_columns<8>(scores, transitions, tags, width, j, best);
  }
  for (; j < width; j += 8) {
    best_columns<1>(scores, transitions, tags, width, j, best);
  }
}
#endif

// The first i that has the greatest values[i] + weights[i * stride], or -1 where all are -infinity
// or NaN.
inline std::int32_t best_of(const float* values, const float* weights, std::size_t stride,
                            std::size_t count, float& best) {
  best = -std::numeric_limits<float>::infinity();
  std::int32_t at = -1;
  for (std::size_t i = 0; i < count; ++i) {
    const float candidate = values[i] + weights[i * stride];
    if (candidate > best) {
      best = candidate;
      at = static_cast<std::int32_t>(i);
    }
  }
  return at;
}

// emissions: [batch, tokens, tags]; lengths: [batch], each in [1, tokens]; transitions: [tags,
// tags]; start, end: [tags]; path: [batch, tokens]; path_scores: [batch].
//
// The way forward keeps only the scores. Where each came from is looked up on the way back, for the
// tags of the path alone.
inline void viterbi(const float* emissions, const std::int32_t* lengths, const float* transitions,
                    const float* start, const float* end, std::size_t batch, std::size_t tokens,
                    std::size_t tags, std::int32_t* path, float* path_scores,
                    [[maybe_unused]] Isa isa = active_isa()) {
#if defined(__x86_64__)
  const auto step = isa == Isa::avx2 ? best_steps_avx2 : best_steps;
#else
  const auto step = best_steps;
#endif
  // A copy: the way back has to find the scores of the way forward, whoever writes meanwhile.
  const std::size_t width = (tags + 7) / 8 * 8;
  std::vector<float> padded(tags * width);
  for (std::size_t i = 0; i < tags; ++i) {
    std::copy_n(transitions + i * tags, tags, padded.data() + i * width);
  }
  std::vector<float> scores(tokens * width);
  for (std::size_t b = 0; b < batch; ++b) {
    const auto length = static_cast<std::size_t>(lengths[b]);
    const float* emission = emissions + b * tokens * tags;
    for (std::size_t j = 0; j < tags; ++j) {
      scores[j] = start[j] + emission[j];
    }
    for (std::size_t t = 1; t < length; ++t) {
      float* now = scores.data() + t * width;
      step(now - width, padded.data(), tags, width, now);
      for (std::size_t j = 0; j < tags; ++j) {
        now[j] += emission[t * tags + j];
      }
    }
    std::int32_t* row = path + b * tokens;
    std::fill_n(row, tokens, -1);
    std::size_t t = length - 1;
    row[t] = best_of(scores.data() + t * width, end, 1, tags, path_scores[b]);
    // Whatever has a score above -infinity was reached from something that has one.
    for (; t > 0 && row[t] >= 0; --t) {
      float score;
      row[t - 1] =
          best_of(scores.data() + (t - 1) * width, padded.data() + row[t], width, tags, score);
    }
  }
}

}  // namespace sprat
