#include "sprat/logits.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();

// Buffers of exactly the size: AddressSanitizer sees a read or write past them.
std::vector<float> noise(std::size_t width) {
  std::mt19937 random(static_cast<unsigned>(width));
  std::uniform_int_distribution<int> level(-40, 40);  // Few levels, so there are ties.
  std::vector<float> logits(width);
  for (float& logit : logits) {
    logit = static_cast<float>(level(random)) / 4.0F;
  }
  return logits;
}

std::vector<std::int32_t> some_bits(std::size_t words) {
  std::mt19937 random(static_cast<unsigned>(words));
  std::vector<std::int32_t> mask(words);
  for (std::size_t w = 0; w < words; ++w) {
    mask[w] = w % 4 == 1 ? 0 : w % 4 == 2 ? -1 : static_cast<std::int32_t>(random());
  }
  return mask;
}

bool bit(const std::vector<std::int32_t>& mask, std::size_t token) {
  return token / 32 < mask.size() &&
         ((static_cast<std::uint32_t>(mask[token / 32]) >> (token % 32)) & 1U) != 0;
}

void masks(std::size_t width, std::size_t words, sprat::Isa isa) {
  const auto logits = noise(width);
  const auto mask = some_bits(words);
  auto masked = logits;
  sprat::mask_logits(mask.data(), words, width, masked.data(), isa);
  std::int32_t best = -1;
  for (std::size_t token = 0; token < width; ++token) {
    CHECK(masked[token] == (bit(mask, token) ? logits[token] : -infinity));
    if (bit(mask, token) && (best < 0 || logits[token] > logits[static_cast<std::size_t>(best)])) {
      best = static_cast<std::int32_t>(token);
    }
  }
  std::int32_t found = -1;
  const std::int32_t nothing = 0;  // A mask without words still forbids.
  const auto fault =
      sprat::argmax(logits.data(), words == 0 ? &nothing : mask.data(), words, width, isa, found);
  CHECK(found == best);
  CHECK(fault == (best < 0 ? sprat::Fault::nothing : sprat::Fault::none));
}

void finds_the_best(std::size_t width, sprat::Isa isa) {
  const auto logits = noise(width);
  std::int32_t found = -1;
  CHECK(sprat::argmax(logits.data(), nullptr, 0, width, isa, found) == sprat::Fault::none);
  CHECK(found == std::max_element(logits.begin(), logits.end()) - logits.begin());
  for (const std::size_t token : {std::size_t{0}, width / 2, width - 1}) {
    auto raised = logits;
    raised[token] = 99.0F;
    CHECK(sprat::argmax(raised.data(), nullptr, 0, width, isa, found) == sprat::Fault::none);
    CHECK(static_cast<std::size_t>(found) == token);
    raised[token] = nan;
    CHECK(sprat::argmax(raised.data(), nullptr, 0, width, isa, found) == sprat::Fault::nan);
    raised[token] = infinity;
    CHECK(sprat::argmax(raised.data(), nullptr, 0, width, isa, found) == sprat::Fault::infinite);
    // What the mask hides may be anything.
    std::vector<std::int32_t> mask((width + 31) / 32, -1);
    mask[token / 32] &= ~static_cast<std::int32_t>(1U << (token % 32));
    const auto fault = sprat::argmax(raised.data(), mask.data(), mask.size(), width, isa, found);
    CHECK(fault == (width == 1 ? sprat::Fault::nothing : sprat::Fault::none));
  }
}

void takes_logarithms(std::size_t width, sprat::Isa isa) {
  const auto logits = noise(width);
  double total = 0.0;
  for (const float logit : logits) {
    total += std::exp(static_cast<double>(logit));
  }
  std::vector<std::int32_t> ids(width);
  for (std::size_t token = 0; token < width; ++token) {
    ids[token] = static_cast<std::int32_t>(token);
  }
  std::vector<float> found(width);
  CHECK(sprat::log_softmax(logits.data(), width, ids.data(), width, isa, found.data()) ==
        sprat::Fault::none);
  for (std::size_t token = 0; token < width; ++token) {
    CHECK(std::abs(found[token] - (logits[token] - std::log(total))) <= 1e-5);
  }
}

void weakens() {
  std::vector<float> logits = {2.0F, -2.0F, 0.0F, 4.0F, 5.0F};
  sprat::penalize_logits({3, 0, 3, 1, 2, 3}, {2.0F, 0.5F, 0.25F}, logits.data());
  const std::vector<float> weaker = {0.25F, -4.75F, -0.75F, 0.25F, 5.0F};
  CHECK(logits == weaker);
  sprat::penalize_logits({}, {2.0F, 0.5F, 0.25F}, logits.data());
  CHECK(logits == weaker);
  const std::vector<std::int32_t> ids = {4, 0, 4};
  const std::vector<float> biases = {1.0F, -infinity, 0.5F};
  sprat::bias_logits(ids.data(), biases.data(), ids.size(), logits.data());
  CHECK(logits[4] == 6.5F);
  CHECK(logits[0] == -infinity);
}

}  // namespace

int main() {
  for (const sprat::Isa isa : {sprat::Isa::baseline, sprat::Isa::avx2}) {
    if (!sprat::supports(isa)) {
      continue;
    }
    for (const std::size_t width : {1, 3, 7, 8, 9, 31, 32, 33, 255, 256, 257, 300, 1031}) {
      for (const std::size_t words : {(width + 31) / 32, (width + 31) / 32 - 1, width / 16 + 2}) {
        masks(width, words, isa);
      }
      finds_the_best(width, isa);
      takes_logarithms(width, isa);
    }
    std::int32_t found = 0;
    CHECK(sprat::argmax(nullptr, nullptr, 0, 0, isa, found) == sprat::Fault::nothing);
    sprat::mask_logits(nullptr, 0, 0, nullptr, isa);
  }
  weakens();
  return 0;
}
