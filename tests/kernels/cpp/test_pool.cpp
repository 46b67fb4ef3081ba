#include "sprat/pool.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"

namespace {

bool close(float got, double expected) {
  return std::abs(got - expected) <= 1e-5 * (1.0 + std::abs(expected));
}

// Against sums in double, one component at a time. The buffer ends with the last token of the last
// row, so AddressSanitizer sees a read of its padding.
void matches_the_formula(std::size_t length, std::size_t width, sprat::Pooling mode,
                         bool normalized, sprat::Isa isa) {
  constexpr std::size_t batch = 2;
  const std::size_t tokens = length + 3;
  const std::vector<std::int32_t> lengths = {static_cast<std::int32_t>(tokens),
                                             static_cast<std::int32_t>(length)};
  std::vector<float> hidden((tokens + length) * width);
  std::mt19937 random(static_cast<unsigned>(length * 1000 + width));
  std::normal_distribution<float> normal;
  for (float& value : hidden) {
    value = normal(random);
  }
  std::vector<float> pooled(batch * width);
  sprat::pool(hidden.data(), lengths.data(), batch, tokens, width, mode, normalized, pooled.data(),
              isa);
  for (std::size_t b = 0; b < batch; ++b) {
    const auto last = static_cast<std::size_t>(lengths[b]);
    const std::size_t first = mode == sprat::Pooling::last ? last - 1 : 0;
    const std::size_t used = mode == sprat::Pooling::mean ? last : 1;
    std::vector<double> expected(width);
    double squares = 0.0;
    for (std::size_t h = 0; h < width; ++h) {
      for (std::size_t t = 0; t < used; ++t) {
        expected[h] += hidden[(b * tokens + first + t) * width + h];
      }
      expected[h] /= static_cast<double>(used);
      squares += expected[h] * expected[h];
    }
    for (std::size_t h = 0; h < width; ++h) {
      const double scale = normalized ? std::sqrt(squares) : 1.0;
      CHECK(close(pooled[b * width + h], expected[h] / scale));
    }
  }
}

void normalizes_extremes() {
  for (const float value : {std::numeric_limits<float>::denorm_min(), 1e-30F, 1e30F,
                            std::numeric_limits<float>::max()}) {
    std::vector<float> vector(16, value);
    sprat::normalize(vector.data(), vector.size());
    for (const float scaled : vector) {
      CHECK(close(scaled, 0.25));
    }
  }
  std::vector<float> zero(9, 0.0F);
  sprat::normalize(zero.data(), zero.size());
  for (const float value : zero) {
    CHECK(value == 0.0F);
  }
  std::vector<float> poisoned(9, 1.0F);
  poisoned[3] = std::numeric_limits<float>::quiet_NaN();
  sprat::normalize(poisoned.data(), poisoned.size());
  for (const float value : poisoned) {
    CHECK(std::isnan(value));
  }
}

void takes_nothing() {
  sprat::pool(nullptr, nullptr, 0, 0, 8, sprat::Pooling::mean, true, nullptr);
  const std::vector<std::int32_t> lengths = {1};
  sprat::pool(nullptr, lengths.data(), 1, 1, 0, sprat::Pooling::cls, true, nullptr);
}

}  // namespace

int main() {
  std::vector<sprat::Isa> variants = {sprat::Isa::baseline};
  if (sprat::supports(sprat::Isa::avx2)) {
    variants.push_back(sprat::Isa::avx2);
  }
  for (const std::size_t length : {1, 2, 3, 4, 5, 7, 8, 9}) {
    // Around the widths of a vector and of the columns of a pass.
    for (const std::size_t width : {1, 3, 4, 5, 7, 8, 9, 16, 17, 63, 64, 65, 79, 384}) {
      for (const auto mode : {sprat::Pooling::mean, sprat::Pooling::cls, sprat::Pooling::last}) {
        for (const sprat::Isa isa : variants) {
          matches_the_formula(length, width, mode, true, isa);
          matches_the_formula(length, width, mode, false, isa);
        }
      }
    }
  }
  normalizes_extremes();
  takes_nothing();
  return 0;
}
