#include "sprat/viterbi.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "check.hpp"

namespace {

constexpr float forbidden = -std::numeric_limits<float>::infinity();

struct Problem {
  std::size_t tokens;
  std::size_t tags;
  std::vector<float> emissions;
  std::vector<float> transitions;
  std::vector<float> start;
  std::vector<float> end;
};

Problem random_problem(std::size_t tokens, std::size_t tags, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto drawn = [&](std::size_t size) {
    std::vector<float> values(size);
    for (float& value : values) {
      value = random() % 4 == 0 ? forbidden : normal(random);
    }
    return values;
  };
  return {tokens, tags, drawn(tokens * tags), drawn(tags * tags), drawn(tags), drawn(tags)};
}

struct Path {
  std::vector<std::int32_t> tags;
  float score;
};

Path solve(const Problem& problem, sprat::Isa isa) {
  Path path{std::vector<std::int32_t>(problem.tokens, -7), 0.0F};
  const auto length = static_cast<std::int32_t>(problem.tokens);
  sprat::viterbi(problem.emissions.data(), &length, problem.transitions.data(),
                 problem.start.data(), problem.end.data(), 1, problem.tokens, problem.tags,
                 path.tags.data(), &path.score, isa);
  return path;
}

// The greatest score of all sequences from a tag at a token on.
float best_rest(const Problem& problem, std::size_t t, std::size_t tag) {
  const float here = problem.emissions[t * problem.tags + tag];
  if (t + 1 == problem.tokens) {
    return here + problem.end[tag];
  }
  float best = forbidden;
  for (std::size_t next = 0; next < problem.tags; ++next) {
    best = std::max(
        best, problem.transitions[tag * problem.tags + next] + best_rest(problem, t + 1, next));
  }
  return here + best;
}

void finds_the_best_of_all(std::size_t tokens, std::size_t tags, unsigned seed) {
  const Problem problem = random_problem(tokens, tags, seed);
  float best = forbidden;
  for (std::size_t tag = 0; tag < tags; ++tag) {
    best = std::max(best, problem.start[tag] + best_rest(problem, 0, tag));
  }
  const Path path = solve(problem, sprat::Isa::baseline);
  CHECK(path.score == best || std::abs(path.score - best) < 1e-4F);
  for (const std::int32_t tag : path.tags) {
    CHECK((tag == -1) == (best == forbidden));
  }
}

void variants_agree(std::size_t tags, unsigned seed) {
  if (sprat::supports(sprat::Isa::avx2)) {
    const Problem problem = random_problem(9, tags, seed);
    const Path plain = solve(problem, sprat::Isa::baseline);
    const Path fast = solve(problem, sprat::Isa::avx2);
    CHECK(plain.tags == fast.tags);
    CHECK(plain.score == fast.score);
  }
}

}  // namespace

int main() {
  for (unsigned seed = 0; seed < 200; ++seed) {
    finds_the_best_of_all(seed % 4 + 1, seed % 3 + 1, seed);
  }
  for (const std::size_t tags : {0, 1, 7, 8, 9, 63, 64, 65, 130}) {
    for (unsigned seed = 0; seed < 5; ++seed) {
      variants_agree(tags, seed);
    }
  }
  return 0;
}
