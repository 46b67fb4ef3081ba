#include "sprat/sampling.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "check.hpp"

namespace {

// Logits are multiples of 1/8 at least; `levels` few make ties, `spread` great makes a peak.
std::vector<float> noise(std::size_t width, float spread, float levels) {
  std::mt19937 random(static_cast<unsigned>(width));
  std::normal_distribution<float> normal;
  std::vector<float> logits(width);
  for (float& logit : logits) {
    logit = std::round(normal(random) * spread * levels) / levels;
  }
  return logits;
}

// Tokens in order of logit, then of number.
std::vector<std::size_t> ordered(const std::vector<float>& logits) {
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  return order;
}

sprat::Border border_of(const std::vector<float>& logits, const std::vector<float>& weights,
                        double goal, double total, sprat::Isa isa) {
  std::vector<float> copies(logits.size() + 8);
  std::vector<float> weight_copies(logits.size() + 8);
  std::vector<std::int32_t> places(logits.size() + 8);
  const sprat::Tokens tokens = {logits.data(), weights.empty() ? nullptr : weights.data(), nullptr,
                                logits.size()};
  return sprat::border_at(tokens, goal, total, sprat::lowest,
                          {copies.data(), weight_copies.data(), places.data()}, isa);
}

void finds_borders(const std::vector<float>& logits, sprat::Isa isa) {
  const auto order = ordered(logits);
  const auto width = logits.size();
  for (const std::size_t count :
       {std::size_t{1}, std::size_t{2}, width / 100 + 1, width / 2 + 1, width - 1, width}) {
    const auto border =
        border_of(logits, {}, static_cast<double>(count), static_cast<double>(width), isa);
    CHECK(border.place == order[count - 1]);
    CHECK(border.logit == logits[order[count - 1]]);
  }
  // Weights that add up exactly, in any order.
  std::vector<float> weights(width);
  double total = 0.0;
  for (std::size_t i = 0; i < width; ++i) {
    weights[i] = static_cast<float>(1 + i * 7919 % 64) / 64.0F;
    total += weights[i];
  }
  for (const double share : {0.001, 0.1, 0.5, 0.9, 0.999, 1.0}) {
    const double goal = share * total;
    double reached = 0.0;
    std::size_t last = 0;
    for (std::size_t i = 0; i < width && reached < goal; ++i) {
      last = order[i];
      reached += weights[last];
    }
    const auto border = border_of(logits, weights, goal, total, isa);
    CHECK(border.place == last);
    CHECK(border.logit == logits[last]);
  }
}

void copies_what_is_between(std::size_t width, sprat::Isa isa) {
  const auto logits = noise(width, 1.0F, 8.0F);
  std::vector<float> copies(width + 8);
  std::vector<std::int32_t> places(width + 8);
  const sprat::Tokens all = {logits.data(), nullptr, nullptr, width};
  const sprat::Target target = {copies.data(), nullptr, places.data()};
  // Over its own source, too.
  const auto some = sprat::copied_between(all, -0.5F, 5.0F, target, isa);
  const auto fewer = sprat::copied_between(some, 0.0F, 0.75F, target, isa);
  std::size_t count = 0;
  for (std::size_t i = 0; i < width; ++i) {
    if (logits[i] >= 0.0F && logits[i] <= 0.75F) {
      CHECK(fewer.place(count) == i);
      CHECK(fewer.logits[count] == logits[i]);
      ++count;
    }
  }
  CHECK(fewer.count == count);
}

// By the definition, in double.
std::size_t expected(const std::vector<float>& logits, const sprat::Filters& filters, double coin) {
  auto order = ordered(logits);
  const float best = logits[order[0]];
  const auto kept = [&](std::size_t count) { order.resize(std::min(count, order.size())); };
  const auto weight = [&](std::size_t token, double temperature) {
    const double scaled = (static_cast<double>(logits[token]) - best) / temperature;
    return scaled < -87.0 ? 0.0 : std::exp(scaled);
  };
  if (filters.top_k > 0) {
    kept(static_cast<std::size_t>(filters.top_k));
  }
  double total = 0.0;
  for (const std::size_t token : order) {
    total += weight(token, 1.0);
  }
  if (filters.top_p < 1.0F) {
    double reached = 0.0;
    std::size_t count = 0;
    while (count < order.size() && reached < static_cast<double>(filters.top_p) * total) {
      reached += weight(order[count++], 1.0);
    }
    kept(count);
  }
  if (filters.min_p > 0.0F) {
    const double least = best + std::log(static_cast<double>(filters.min_p));
    kept(static_cast<std::size_t>(std::count_if(order.begin(), order.end(), [&](std::size_t token) {
      return logits[token] >= static_cast<float>(least);
    })));
  }
  std::sort(order.begin(), order.end());
  total = 0.0;
  for (const std::size_t token : order) {
    total += weight(token, static_cast<double>(filters.temperature));
  }
  double reached = 0.0;
  for (const std::size_t token : order) {
    reached += weight(token, static_cast<double>(filters.temperature));
    if (reached > coin * total) {
      return token;
    }
  }
  return order.back();
}

void samples(const std::vector<float>& logits, sprat::Isa isa) {
  sprat::Sampler sampler(logits.size(), isa);
  int off = 0;
  for (const std::int32_t top_k : {0, 1, 40, 400}) {
    for (const float top_p : {1e-6F, 0.5F, 0.95F, 1.0F}) {
      for (const float min_p : {0.0F, 0.05F, 1.0F}) {
        for (const float temperature : {0.7F, 1.0F, 2.0F}) {
          const sprat::Filters filters = {temperature, top_k, top_p, min_p};
          for (const double coin : {0.0, 0.123, 0.77, std::nextafter(1.0, 0.0)}) {
            std::int32_t token = -1;
            CHECK(sampler.sample(logits.data(), nullptr, 0, filters, coin, token) ==
                  sprat::Fault::none);
            const auto lower = expected(logits, filters, std::max(0.0, coin - 1e-5));
            const auto upper = expected(logits, filters, std::min(1.0, coin + 1e-5));
            const auto found = static_cast<std::size_t>(token);
            // Where top-p ends within rounding of a border, the whole set is another.
            off += found < lower || found > upper ? 1 : 0;
          }
        }
      }
    }
  }
  CHECK(off <= 5);  // Of 576.
}

void takes_few_tokens(sprat::Isa isa) {
  const float minus = sprat::lowest;
  const std::vector<float> logits = {minus, 1.0F, minus, 2.0F};
  sprat::Sampler sampler(4, isa);
  for (const double coin : {0.0, 0.2, 0.3, 0.9999999}) {
    std::int32_t token = -1;
    CHECK(sampler.sample(logits.data(), nullptr, 0, {1.0F, 3, 0.99F, 0.0F}, coin, token) ==
          sprat::Fault::none);
    CHECK(token == (coin < 0.2689 ? 1 : 3));
    const std::int32_t mask = 2;
    CHECK(sampler.sample(logits.data(), &mask, 1, {1.0F, 0, 1.0F, 0.0F}, coin, token) ==
          sprat::Fault::none);
    CHECK(token == 1);
    CHECK(sampler.sample(logits.data(), &mask, 0, {1.0F, 0, 1.0F, 0.0F}, coin, token) ==
          sprat::Fault::nothing);
  }
}

}  // namespace

int main() {
  for (const sprat::Isa isa : {sprat::Isa::baseline, sprat::Isa::avx2}) {
    if (!sprat::supports(isa)) {
      continue;
    }
    for (const std::size_t width : {2, 127, 128, 129, 257, 4001}) {
      for (const float spread : {0.0F, 0.25F, 1.0F, 6.0F}) {
        for (const float levels : {8.0F, 65536.0F}) {
          finds_borders(noise(width, spread, levels), isa);
        }
      }
      copies_what_is_between(width, isa);
      std::vector<float> rising(width);
      std::iota(rising.begin(), rising.end(), 0.0F);
      finds_borders(rising, isa);
      std::reverse(rising.begin(), rising.end());
      finds_borders(rising, isa);
    }
    for (const std::size_t width : {1, 9, 300, 1031}) {
      samples(noise(width, 3.0F, 65536.0F), isa);
      samples(noise(width, 0.0F, 1.0F), isa);
    }
    takes_few_tokens(isa);
  }
  return 0;
}
