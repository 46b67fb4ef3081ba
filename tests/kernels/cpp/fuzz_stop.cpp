// Any stop strings and any text, cut anywhere, end where a search says. The lines of the input up
// to an empty one are the stop strings; the rest is the text.
#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "cuts.hpp"
#include "fuzz.hpp"
#include "sprat/stop.hpp"

namespace {

struct Case {
  std::vector<std::string> stops;
  std::string_view text;
};

Case parse(std::string_view input) {
  Case parsed;
  for (;;) {
    const std::size_t end = std::min(input.find('\n'), input.size());
    const std::string_view line = input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
    if (line.empty()) {
      break;
    }
    parsed.stops.emplace_back(line);
  }
  parsed.text = input;
  return parsed;
}

// Where the text ends and where the stop string does; both at its own end when none comes.
struct Cut {
  std::size_t shown;
  std::size_t end;
};

Cut search(const Case& given) {
  Cut best = {given.text.size(), given.text.size()};
  bool found = false;
  for (const std::string& stop : given.stops) {
    const std::size_t at = given.text.find(stop);
    if (at != std::string_view::npos) {
      const Cut cut = {at, at + stop.size()};
      if (!found || cut.end < best.end || (cut.end == best.end && cut.shown < best.shown)) {
        best = cut;
      }
      found = true;
    }
  }
  return best;
}

std::size_t longest_hold(const Case& given, std::string_view text) {
  std::size_t longest = 0;
  for (const std::string& stop : given.stops) {
    for (std::size_t size = 1; size < stop.size() && size <= text.size(); ++size) {
      if (text.substr(text.size() - size) == std::string_view(stop).substr(0, size)) {
        longest = std::max(longest, size);
      }
    }
  }
  return longest;
}

void check(std::string_view input) {
  const Case given = parse(input.substr(0, 512));  // The search below is slow.
  const Cut cut = search(given);
  for (const Pieces& pieces : some_cuts(given.text)) {
    sprat::StopMatcher matcher(given.stops);
    std::string text;
    std::size_t fed = 0;
    for (const auto& piece : pieces) {
      matcher.feed(view(piece), text);
      fed += piece.size();
      if (!matcher.stopped() && pieces.size() < 64) {
        CHECK(text.size() == fed - longest_hold(given, given.text.substr(0, fed)));
      }
    }
    matcher.flush(text);
    CHECK(text == given.text.substr(0, cut.shown));
    if (matcher.stopped()) {
      CHECK(given.stops[matcher.matched()] == given.text.substr(cut.shown, cut.end - cut.shown));
    } else {
      CHECK(cut.shown == given.text.size());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return fuzz(argc, argv, [](const auto& bytes) {
    check({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  });
}
