// Runs a target on seeds and on a bounded number of mutations of them, the same ones each time.
// The program takes the folder of seeds and the number of mutations.
#pragma once

#include <sanitizer/common_interface_defs.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fuzzing {

constexpr std::size_t longest = 1024;

// The input that runs, shown if it turns out to be the last one: it has to outlive the program.
inline std::string& current() {
  static auto* input = new std::string;
  return *input;
}

inline void show_current() {
  std::fprintf(stderr, "input of the failure, in hexadecimal: ");
  for (const char byte : current()) {
    std::fprintf(stderr, "%02x", static_cast<unsigned char>(byte));
  }
  std::fprintf(stderr, "\n");
}

inline std::vector<std::string> read_seeds(const char* folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> seeds;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return seeds;
}

class Mutator {
 public:
  explicit Mutator(std::vector<std::string> seeds) : seeds_(std::move(seeds)) {}

  std::string next() {
    std::string input = any_seed();
    for (std::size_t steps = 1 + below(8); steps > 0; --steps) {
      step(input);
    }
    input.resize(std::min(input.size(), longest));
    return input;
  }

 private:
  std::size_t below(std::size_t end) { return static_cast<std::size_t>(random_() % end); }
  const std::string& any_seed() { return seeds_[below(seeds_.size())]; }

  std::string part_of(const std::string& text) {
    const std::size_t at = below(text.size() + 1);
    return text.substr(at, below(std::min<std::size_t>(text.size() - at, 32) + 1));
  }

  void step(std::string& input) {
    const std::size_t at = below(input.size() + 1);
    const auto byte = static_cast<char>(random_() & 0xFF);
    switch (below(7)) {
      case 0:
        input.insert(at, 1, byte);
        break;
      case 1:
        input.insert(at, part_of(input));
        break;
      case 2:
        input.insert(at, part_of(any_seed()));
        break;
      case 3:
        input.erase(at, 1 + below(8));
        break;
      case 4:
        input.insert(at, 1 + below(64), at < input.size() ? input[at] : byte);
        break;
      default:
        if (at < input.size()) {
          input[at] = below(2) == 0 ? byte : static_cast<char>(input[at] ^ (1 << below(8)));
        }
    }
  }

  std::vector<std::string> seeds_;
  std::mt19937_64 random_;  // never seeded: the same sequence each time
};

}  // namespace fuzzing

// `target` takes a std::string_view. A failed CHECK or a report of a sanitizer ends the program.
template <class F>
int fuzz(int argc, char** argv, F target) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s SEEDS MUTATIONS\n", argv[0]);
    return 2;
  }
  std::vector<std::string> seeds = fuzzing::read_seeds(argv[1]);
  if (seeds.empty()) {
    std::fprintf(stderr, "no seeds in %s\n", argv[1]);
    return 2;
  }
  static bool done = false;
  __sanitizer_set_death_callback(fuzzing::show_current);
  std::atexit([] {
    if (!done) {
      fuzzing::show_current();
    }
  });
  const auto run = [&target](const std::string& input) {
    fuzzing::current() = input;
    // A buffer of exactly this size: AddressSanitizer sees a read past the input.
    const std::vector<char> bytes(input.begin(), input.end());
    target(std::string_view(bytes.data(), bytes.size()));
  };
  for (const std::string& seed : seeds) {
    run(seed);
  }
  fuzzing::Mutator mutator(std::move(seeds));
  for (unsigned long count = std::strtoul(argv[2], nullptr, 10); count > 0; --count) {
    run(mutator.next());
  }
  done = true;
  return 0;
}
