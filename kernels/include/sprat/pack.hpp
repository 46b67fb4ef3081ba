// Ragged rows to padded ones; specified by sprat.kernels.reference.pack and length_order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

namespace sprat {

// Copies the rows `order` of `ids` into `padded`, `tokens` wide, and marks them in `mask`.
// offsets: [rows + 1], ascending; order: [taken], each a row of at most `tokens` ids; padded and
// mask: [taken, tokens]. Returns the index in `ids` of the first one outside [0, limit), or -1.
inline std::int64_t pack(const std::int32_t* ids, const std::int64_t* offsets,
                         const std::int32_t* order, std::size_t taken, std::size_t tokens,
                         std::int32_t limit, std::int32_t* padded, bool* mask) {
  for (std::size_t m = 0; m < taken; ++m) {
    const std::int64_t start = offsets[order[m]];
    const auto length = static_cast<std::size_t>(offsets[order[m] + 1] - start);
    std::int32_t* row = padded + m * tokens;
    std::copy_n(ids + start, length, row);
    std::fill(row + length, row + tokens, 0);
    std::fill_n(mask + m * tokens, length, true);
    std::fill_n(mask + m * tokens + length, tokens - length, false);
    // What was copied is checked: whoever writes to `ids` meanwhile changes nothing any more.
    // Unsigned, an id below 0 is above every limit.
    std::uint32_t largest = 0;
    for (std::size_t t = 0; t < length; ++t) {
      largest = std::max(largest, static_cast<std::uint32_t>(row[t]));
    }
    if (length > 0 && largest >= static_cast<std::uint32_t>(limit)) {
      const auto* wrong = std::find_if(row, row + length, [limit](std::int32_t id) {
        return static_cast<std::uint32_t>(id) >= static_cast<std::uint32_t>(limit);
      });
      return start + (wrong - row);
    }
  }
  return -1;
}

// Rows from the longest to the shortest, and the place of each; equal ones keep their order.
inline void length_order(const std::int32_t* lengths, std::size_t rows, std::int32_t* order,
                         std::int32_t* inverse) {
  std::iota(order, order + rows, 0);
  std::stable_sort(order, order + rows, [lengths](std::int32_t one, std::int32_t other) {
    return lengths[one] > lengths[other];
  });
  for (std::size_t i = 0; i < rows; ++i) {
    inverse[order[i]] = static_cast<std::int32_t>(i);
  }
}

}  // namespace sprat
