// Ways to cut an input of a stream into pieces.
#pragma once

#include <cstddef>
#include <random>
#include <string_view>
#include <vector>

// Whole, byte by byte, and at random places that depend on the input only.
inline std::vector<std::vector<std::string_view>> some_cuts(std::string_view input) {
  std::vector<std::vector<std::string_view>> ways = {{input}, {}, {}, {}};
  for (std::size_t at = 0; at < input.size(); ++at) {
    ways[1].push_back(input.substr(at, 1));
  }
  std::mt19937 random(static_cast<std::mt19937::result_type>(input.size()));
  for (std::size_t way = 2; way < ways.size(); ++way) {
    for (std::size_t at = 0; at < input.size();) {
      const std::size_t size = random() % 12;  // sometimes nothing
      ways[way].push_back(input.substr(at, size));
      at += size;
    }
  }
  return ways;
}
