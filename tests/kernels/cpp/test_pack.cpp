#include "sprat/pack.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "check.hpp"

namespace {

// Buffers of exactly the size that is needed: AddressSanitizer sees every step beside them.
void pads_random_rows(unsigned seed) {
  std::mt19937 random(seed);
  const std::size_t rows = random() % 6 + 1;
  std::vector<std::int64_t> offsets = {0};
  for (std::size_t row = 0; row < rows; ++row) {
    offsets.push_back(offsets.back() + random() % 9);
  }
  std::vector<std::int32_t> ids(static_cast<std::size_t>(offsets.back()));
  for (std::int32_t& id : ids) {
    id = static_cast<std::int32_t>(random() % 100);
  }
  std::vector<std::int32_t> order(random() % 9);
  std::size_t tokens = 0;
  for (std::int32_t& row : order) {
    row = static_cast<std::int32_t>(random() % rows);
    const auto at = static_cast<std::size_t>(row);
    tokens = std::max(tokens, static_cast<std::size_t>(offsets[at + 1] - offsets[at]));
  }
  std::vector<std::int32_t> padded(order.size() * tokens, -7);
  const auto mask = std::make_unique<bool[]>(order.size() * tokens);
  CHECK(sprat::pack(ids.data(), offsets.data(), order.data(), order.size(), tokens, 100,
                    padded.data(), mask.get()) == -1);
  for (std::size_t m = 0; m < order.size(); ++m) {
    const auto row = static_cast<std::size_t>(order[m]);
    for (std::size_t t = 0; t < tokens; ++t) {
      const bool real = static_cast<std::int64_t>(t) < offsets[row + 1] - offsets[row];
      const auto at = static_cast<std::size_t>(offsets[row]) + t;
      CHECK(mask[m * tokens + t] == real);
      CHECK(padded[m * tokens + t] == (real ? ids[at] : 0));
    }
  }
}

void names_the_first_id_out_of_range() {
  const std::vector<std::int64_t> offsets = {0, 2, 4};
  const std::vector<std::int32_t> forwards = {0, 1};
  const std::vector<std::int32_t> backwards = {1, 0};
  std::vector<std::int32_t> padded(4);
  bool mask[4];
  for (const std::int32_t wrong : {10, -1, 2147483647, -2147483647 - 1}) {
    const std::vector<std::int32_t> ids = {9, wrong, 0, wrong};
    CHECK(sprat::pack(ids.data(), offsets.data(), forwards.data(), 2, 2, 10, padded.data(), mask) ==
          1);
    CHECK(sprat::pack(ids.data(), offsets.data(), backwards.data(), 2, 2, 10, padded.data(),
                      mask) == 3);
  }
}

void orders_the_longest_first() {
  const std::vector<std::int32_t> lengths = {2, 5, 2, 0, 5};
  std::vector<std::int32_t> order(5);
  std::vector<std::int32_t> inverse(5);
  sprat::length_order(lengths.data(), 5, order.data(), inverse.data());
  CHECK((order == std::vector<std::int32_t>{1, 4, 0, 2, 3}));
  CHECK((inverse == std::vector<std::int32_t>{2, 0, 3, 4, 1}));
  sprat::length_order(nullptr, 0, nullptr, nullptr);
}

}  // namespace

int main() {
  for (unsigned seed = 0; seed < 300; ++seed) {
    pads_random_rows(seed);
  }
  names_the_first_id_out_of_range();
  orders_the_longest_first();
  return 0;
}
