#include "sprat/head.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"

namespace {

struct Answer {
  std::vector<std::int32_t> indices;
  std::vector<float> probabilities;
};

Answer classify(const std::vector<float>& vectors, const std::vector<float>& weight,
                const std::vector<float>& bias, std::size_t batch, double temperature,
                std::size_t top, sprat::Isa isa) {
  const std::size_t width = batch == 0 ? 0 : vectors.size() / batch;
  Answer answer{std::vector<std::int32_t>(batch * top), std::vector<float>(batch * top)};
  sprat::classify_head(vectors.data(), weight.data(), bias.data(), batch, bias.size(), width,
                       temperature, top, answer.indices.data(), answer.probabilities.data(), isa);
  return answer;
}

// Against plain sums, and one variant against the other to the last bit.
void matches_the_formula(std::size_t labels, std::size_t width) {
  constexpr std::size_t batch = 2;
  constexpr double temperature = 0.8;
  std::mt19937 random(static_cast<unsigned>(labels * 1000 + width));
  std::normal_distribution<float> normal;
  const auto drawn = [&](std::size_t size) {
    std::vector<float> values(size);
    for (float& value : values) {
      value = normal(random);
    }
    return values;
  };
  const auto vectors = drawn(batch * width);
  const auto weight = drawn(labels * width);
  const auto bias = drawn(labels);
  const Answer plain =
      classify(vectors, weight, bias, batch, temperature, labels, sprat::Isa::baseline);
  if (sprat::supports(sprat::Isa::avx2)) {
    const Answer fast =
        classify(vectors, weight, bias, batch, temperature, labels, sprat::Isa::avx2);
    CHECK(fast.indices == plain.indices);
    CHECK(fast.probabilities == plain.probabilities);
  }
  for (std::size_t b = 0; b < batch; ++b) {
    std::vector<double> powers(labels);
    double total = 0.0;
    for (std::size_t k = 0; k < labels; ++k) {
      double logit = bias[k];
      for (std::size_t h = 0; h < width; ++h) {
        logit += static_cast<double>(vectors[b * width + h]) * weight[k * width + h];
      }
      powers[k] = std::exp(logit / temperature);
      total += powers[k];
    }
    for (std::size_t i = 0; i < labels; ++i) {
      const auto label = static_cast<std::size_t>(plain.indices[b * labels + i]);
      const double expected = powers[label] / total;
      CHECK(std::abs(plain.probabilities[b * labels + i] - expected) <= 1e-6 * expected + 1e-44);
      CHECK(i == 0 ||
            plain.probabilities[b * labels + i] <= plain.probabilities[b * labels + i - 1]);
    }
  }
}

void keeps_ties_in_order_and_has_no_answer_for_nan() {
  const std::vector<float> weight(5, 1.0F);
  const std::vector<float> bias(5, 0.0F);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto isa : {sprat::Isa::baseline, sprat::active_isa()}) {
    const Answer answer = classify({1.0F, nan}, weight, bias, 2, 1.0, 3, isa);
    CHECK((answer.indices == std::vector<std::int32_t>{0, 1, 2, 0, 1, 2}));
    CHECK(answer.probabilities[2] == 0.2F);
    CHECK(std::isnan(answer.probabilities[3]));
  }
}

}  // namespace

int main() {
  for (const std::size_t labels : {1, 3, 4, 5, 8, 9}) {
    for (const std::size_t width : {0, 1, 7, 8, 9, 16, 17, 384}) {
      matches_the_formula(labels, width);
    }
  }
  keeps_ties_in_order_and_has_no_answer_for_nan();
  CHECK(classify({}, {1.0F}, {1.0F}, 0, 1.0, 1, sprat::active_isa()).indices.empty());
  return 0;
}
