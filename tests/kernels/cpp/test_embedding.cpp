#include "sprat/embedding.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "check.hpp"

namespace {

std::vector<sprat::Isa> variants() {
  std::vector<sprat::Isa> all = {sprat::Isa::baseline};
  if (sprat::supports(sprat::Isa::avx2)) {
    all.push_back(sprat::Isa::avx2);
  }
  return all;
}

// A table of small values that all types hold exactly, the last of its rows at the end of the
// buffer: AddressSanitizer sees a read past it.
template <typename T, typename Make>
void matches_the_formula(std::size_t width, bool weighted, bool normalized, bool shared,
                         Make make) {
  constexpr std::size_t rows = 5;
  const std::vector<std::int32_t> ids = {4, 0, 4, 1, 2, 3, 4, 4, 0};
  const std::vector<std::int64_t> offsets = {0, 1, 1, 9};
  std::mt19937 random(static_cast<unsigned>(width));
  std::vector<double> values(rows * width);
  std::vector<T> table(rows * width);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int value = static_cast<int>(random() % 3) - 1;
    values[i] = value;
    table[i] = make(value);
  }
  const std::vector<float> weights = {0.5F, -1.0F, 2.0F, 0.0F, 1.5F};
  const std::vector<std::int32_t> rows_of = {4, 4, 1, 0, 2};
  for (const sprat::Isa isa : variants()) {
    std::vector<float> vectors(3 * width, -9.0F);
    const sprat::EmbeddingTable<T> rows_and_weights{table.data(), width,
                                                    weighted ? weights.data() : nullptr,
                                                    shared ? rows_of.data() : nullptr};
    sprat::embedding_bag(ids.data(), offsets.data(), 3, rows_and_weights, normalized,
                         vectors.data(), isa);
    for (std::size_t b = 0; b < 3; ++b) {
      std::vector<double> expected(width);
      double squares = 0.0;
      const auto start = static_cast<std::size_t>(offsets[b]);
      const auto end = static_cast<std::size_t>(offsets[b + 1]);
      for (std::size_t h = 0; h < width; ++h) {
        for (std::size_t n = start; n < end; ++n) {
          const auto id = static_cast<std::size_t>(ids[n]);
          const auto row = shared ? static_cast<std::size_t>(rows_of[id]) : id;
          expected[h] += (weighted ? weights[id] : 1.0F) * values[row * width + h];
        }
        expected[h] /= end > start ? static_cast<double>(end - start) : 1.0;
        squares += expected[h] * expected[h];
      }
      const double scale = normalized && squares > 0 ? std::sqrt(squares) : 1.0;
      for (std::size_t h = 0; h < width; ++h) {
        CHECK(std::abs(vectors[b * width + h] - expected[h] / scale) <= 1e-6);
      }
    }
  }
}

void reads_special_halves() {
  const auto value = [](int bits) {
    return sprat::to_float(sprat::Half{static_cast<std::uint16_t>(bits)});
  };
  CHECK(value(0x0000) == 0.0F && !std::signbit(value(0x0000)));
  CHECK(value(0x8000) == 0.0F && std::signbit(value(0x8000)));
  CHECK(value(0x0001) == 0x1p-24F);
  CHECK(value(0x83FF) == -0x1.FF8p-15F);
  CHECK(value(0x0400) == 0x1p-14F);
  CHECK(value(0xBC00) == -1.0F);
  CHECK(value(0x7BFF) == 65504.0F);
  CHECK(std::isinf(value(0x7C00)) && value(0xFC00) < 0.0F);
  CHECK(std::isnan(value(0x7C01)) && std::isnan(value(0xFE00)));
}

}  // namespace

int main() {
  const auto byte = [](int value) { return static_cast<std::int8_t>(value); };
  const auto single = [](int value) { return static_cast<float>(value); };
  const auto half = [](int value) {  // of -1, 0 and 1
    return sprat::Half{static_cast<std::uint16_t>(value == 0 ? 0 : value < 0 ? 0xBC00 : 0x3C00)};
  };
  for (const std::size_t width : {0, 1, 7, 8, 9, 63, 64, 65, 73, 256}) {
    for (const bool weighted : {false, true}) {
      for (const bool normalized : {false, true}) {
        for (const bool shared : {false, true}) {
          matches_the_formula<std::int8_t>(width, weighted, normalized, shared, byte);
          matches_the_formula<sprat::Half>(width, weighted, normalized, shared, half);
          matches_the_formula<float>(width, weighted, normalized, shared, single);
        }
      }
    }
  }
  reads_special_halves();
  return 0;
}
