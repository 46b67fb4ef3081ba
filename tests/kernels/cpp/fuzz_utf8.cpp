// Any bytes, cut anywhere, decode as Unicode's table 3-7 says.
#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "cuts.hpp"
#include "fuzz.hpp"
#include "sprat/utf8.hpp"

namespace {

struct Range {
  unsigned char lowest;
  unsigned char highest;
};

constexpr Range tail = {0x80, 0xBF};

// The rows of table 3-7.
const std::array<std::vector<Range>, 9> sequences = {{
    {{0x00, 0x7F}},
    {{0xC2, 0xDF}, tail},
    {{0xE0, 0xE0}, {0xA0, 0xBF}, tail},
    {{0xE1, 0xEC}, tail, tail},
    {{0xED, 0xED}, {0x80, 0x9F}, tail},
    {{0xEE, 0xEF}, tail, tail},
    {{0xF0, 0xF0}, {0x90, 0xBF}, tail, tail},
    {{0xF1, 0xF3}, tail, tail, tail},
    {{0xF4, 0xF4}, {0x80, 0x8F}, tail, tail},
}};

// How many bytes at the start of `bytes` follow a row.
std::size_t matching(const std::vector<Range>& sequence, std::string_view bytes) {
  std::size_t count = 0;
  while (count < std::min(sequence.size(), bytes.size())) {
    const auto byte = static_cast<unsigned char>(bytes[count]);
    if (byte < sequence[count].lowest || byte > sequence[count].highest) {
      break;
    }
    ++count;
  }
  return count;
}

std::string decoded(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    std::size_t subpart = 1;
    bool whole = false;
    for (const auto& sequence : sequences) {
      const std::size_t count = matching(sequence, bytes);
      whole = whole || count == sequence.size();
      subpart = std::max(subpart, count);
    }
    text += whole ? std::string(bytes.substr(0, subpart)) : "\xEF\xBF\xBD";
    bytes.remove_prefix(subpart);
  }
  return text;
}

void check(std::string_view input) {
  const std::string expected = decoded(input);
  for (const Pieces& pieces : some_cuts(input)) {
    sprat::Utf8Stream stream;
    std::string text;
    for (const auto& piece : pieces) {
      std::string shown;
      stream.feed(view(piece), shown);
      CHECK(decoded(shown) == shown);  // Never half a code point.
      text += shown;
    }
    stream.flush(text);
    CHECK(text == expected);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return fuzz(argc, argv, [](const auto& bytes) {
    check({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  });
}
