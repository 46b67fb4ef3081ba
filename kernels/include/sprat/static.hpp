// From texts to means of their tokens' rows in one pass; specified by
// sprat.kernels.reference.StaticEmbedding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "sprat/embedding.hpp"
#include "sprat/wordpiece.hpp"

namespace sprat {

enum class TableType { int8, float16, float32 };

// The table belongs to the caller and has a row for every id of the tokenizer.
class StaticEmbedding {
 public:
  // values: [rows, width] of this type; weights and rows_of: one for each token, or empty, as in
  // `EmbeddingTable`.
  StaticEmbedding(WordPiece wordpiece, const void* values, TableType type, std::size_t width,
                  std::vector<float> weights, std::vector<std::int32_t> rows_of, bool normalized)
      : wordpiece_(std::move(wordpiece)),
        values_(values),
        type_(type),
        width_(width),
        weights_(std::move(weights)),
        rows_of_(std::move(rows_of)),
        normalized_(normalized) {}

  std::size_t width() const { return width_; }

  // vectors: [texts, width]; tokens: those that a vector is the mean of; dropped: as in
  // `WordPieceRows`.
  void encode(const std::vector<TextView>& texts, const WordPieceOptions& options, float* vectors,
              std::int64_t* tokens, std::int64_t* dropped, Isa isa = active_isa()) const {
    switch (type_) {
      case TableType::int8:
        return encode<std::int8_t>(texts, options, vectors, tokens, dropped, isa);
      case TableType::float16:
        return encode<Half>(texts, options, vectors, tokens, dropped, isa);
      case TableType::float32:
        return encode<float>(texts, options, vectors, tokens, dropped, isa);
    }
  }

 private:
  template <typename T>
  void encode(const std::vector<TextView>& texts, const WordPieceOptions& options, float* vectors,
              std::int64_t* tokens, std::int64_t* dropped, Isa isa) const {
    EmbeddingBag<T> bag(
        {static_cast<const T*>(values_), width_, weights_.empty() ? nullptr : weights_.data(),
         rows_of_.empty() ? nullptr : rows_of_.data()},
        normalized_, isa);
    WordPieceRows row;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      row.clear();
      wordpiece_.encode(texts[i], options, row);
      bag.clear();
      for (const std::int32_t id : row.ids) {
        if (id != wordpiece_.unknown()) {
          bag.add(id);
        }
      }
      bag.mean(vectors + i * width_);
      tokens[i] = static_cast<std::int64_t>(bag.tokens());
      dropped[i] = row.dropped[0];
    }
  }

  WordPiece wordpiece_;
  const void* values_;
  TableType type_;
  std::size_t width_;
  std::vector<float> weights_;
  std::vector<std::int32_t> rows_of_;
  bool normalized_;
};

}  // namespace sprat
