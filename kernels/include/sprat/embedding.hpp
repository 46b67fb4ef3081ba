// Means over rows of an embedding table; specified by sprat.kernels.reference.embedding_bag.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "sprat/isa.hpp"
#include "sprat/pool.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace sprat {

// A float16 value as it lies in memory (IEEE 754 binary16).
struct Half {
  std::uint16_t bits;
};

inline float to_float(std::int8_t value) { return static_cast<float>(value); }
inline float to_float(float value) { return value; }

// Shifts exponent and fraction into the place that they have in a float and multiplies by 2^112,
// the difference of the exponents' biases: exact for normal and subnormal numbers. Infinities and
// NaN come out from 2^16 up and get the largest exponent. Without branches, so that loops over it
// use vector registers.
inline float to_float(Half half) {
  const std::uint32_t magnitude = (half.bits & 0x7FFFU) << 13;
  float value;
  std::memcpy(&value, &magnitude, sizeof value);
  value *= 0x1p112F;
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits |= (magnitude >= (0x7C00U << 13) ? 0x7F800000U : 0U) | (half.bits & 0x8000U) << 16;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A table and what the tokens of a vocabulary make of it.
template <typename T>
struct EmbeddingTable {
  const T* values;           // [rows, width]
  std::size_t width;         // of a row
  const float* weights;      // of each token; null for 1
  const std::int32_t* rows;  // of each token; null where token i has row i
};

// A row of a table and its weight.
struct Term {
  std::size_t row;
  float weight;
};

// sum = the rows of the table that the terms name, each times its weight.
template <typename T>
void sum_rows(const std::vector<Term>& terms, const T* table, std::size_t width, float* sum) {
  std::fill_n(sum, width, 0.0F);
  for (const Term& term : terms) {
    const T* row = table + term.row * width;
    for (std::size_t h = 0; h < width; ++h) {
      sum[h] += term.weight * to_float(row[h]);
    }
  }
}

#if defined(__x86_64__)
SPRAT_AVX2 inline __m256 load_8(const std::int8_t* values) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(values));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

SPRAT_AVX2 inline __m256 load_8(const Half* values) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
}

SPRAT_AVX2 inline __m256 load_8(const float* values) { return _mm256_loadu_ps(values); }

// The sums of `vectors` times 8 columns from `first` on stay in registers.
template <std::size_t vectors, typename T>
SPRAT_AVX2 void sum_columns(const std::vector<Term>& terms, const T* table, std::size_t width,
                            std::size_t first, float* sum) {
  __m256 sums[vectors];
  for (std::size_t i = 0; i < vectors; ++i) {
    sums[i] = _mm256_setzero_ps();
  }
  for (const Term& term : terms) {
    const T* row = table + term.row * width + first;
    const __m256 weight = _mm256_set1_ps(term.weight);
    for (std::size_t i = 0; i < vectors; ++i) {
      sums[i] = _mm256_fmadd_ps(weight, load_8(row + 8 * i), sums[i]);
    }
  }
  for (std::size_t i = 0; i < vectors; ++i) {
    _mm256_storeu_ps(sum + first + 8 * i, sums[i]);
  }
}

// 3 times as fast as the above for int8 and 9 times for float16, 256 columns wide.
template <typename T>
SPRAT_AVX2 void sum_rows_avx2(const std::vector<Term>& terms, const T* table, std::size_t width,
                              float* sum) {
  std::size_t h = 0;
  for (; h + 64 <= width; h += 64) {
    sum_columns<8>(terms, table, width, h, sum);
  }
  for (; h + 8 <= width; h += 8) {
    sum_columns<1>(terms, table, width, h, sum);
  }
  for (; h < width; ++h) {
    sum[h] = 0.0F;
    for (const Term& term : terms) {
      sum[h] += term.weight * to_float(table[term.row * width + h]);
    }
  }
}
#endif

// Means over rows of one table, text after text.
template <typename T>
class EmbeddingBag {
 public:
  EmbeddingBag(EmbeddingTable<T> table, bool normalized, [[maybe_unused]] Isa isa = active_isa())
      : table_(table), normalized_(normalized) {
#if defined(__x86_64__)
    if (isa == Isa::avx2) {
      sum_ = sum_rows_avx2<T>;
    }
#endif
  }

  // Starts another text.
  void clear() { terms_.clear(); }

  // Takes a token of the vocabulary in.
  void add(std::int32_t id) {
    const auto token = static_cast<std::size_t>(id);
    terms_.push_back({table_.rows == nullptr ? token : static_cast<std::size_t>(table_.rows[token]),
                      table_.weights == nullptr ? 1.0F : table_.weights[token]});
  }

  // vector: [width], the mean of the text's tokens; zeros for none.
  void mean(float* vector) const {
    sum_(terms_, table_.values, table_.width, vector);
    if (terms_.empty()) {
      return;
    }
    for (std::size_t h = 0; h < table_.width; ++h) {
      vector[h] /= static_cast<float>(terms_.size());
    }
    if (normalized_) {
      normalize(vector, table_.width);
    }
  }

  std::size_t tokens() const { return terms_.size(); }
  std::size_t width() const { return table_.width; }

 private:
  EmbeddingTable<T> table_;
  bool normalized_;
  void (*sum_)(const std::vector<Term>&, const T*, std::size_t, float*) = sum_rows<T>;
  std::vector<Term> terms_;
};

// ids: [offsets[batch]], each a token of the table; offsets: [batch + 1], ascending from 0;
// vectors: [batch, width].
template <typename T>
void embedding_bag(const std::int32_t* ids, const std::int64_t* offsets, std::size_t batch,
                   const EmbeddingTable<T>& table, bool normalized, float* vectors,
                   Isa isa = active_isa()) {
  EmbeddingBag<T> bag(table, normalized, isa);
  for (std::size_t b = 0; b < batch; ++b) {
    bag.clear();
    std::for_each(ids + offsets[b], ids + offsets[b + 1], [&bag](std::int32_t id) { bag.add(id); });
    bag.mean(vectors + b * table.width);
  }
}

}  // namespace sprat
