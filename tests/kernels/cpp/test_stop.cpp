#include "sprat/stop.hpp"

#include <cstddef>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"

namespace {

using Strings = std::vector<std::string>;

struct Outcome {
  std::string text;
  std::string matched;  // none is empty, so empty says that none came

  bool operator==(const Outcome& other) const {
    return text == other.text && matched == other.matched;
  }
};

void feed(sprat::StopMatcher& matcher, std::string_view piece, std::string& text) {
  // A buffer of exactly this size: AddressSanitizer sees a read past the piece.
  const std::vector<char> bytes(piece.begin(), piece.end());
  matcher.feed(std::string_view(bytes.data(), bytes.size()), text);
}

Outcome match(const Strings& stops, const Strings& pieces) {
  sprat::StopMatcher matcher(stops);
  Outcome outcome;
  for (const std::string& piece : pieces) {
    feed(matcher, piece, outcome.text);
  }
  matcher.flush(outcome.text);
  if (matcher.stopped()) {
    outcome.matched = stops[matcher.matched()];
  }
  return outcome;
}

// What the words say, one byte at a time.
Outcome expected(const Strings& stops, const std::string& text) {
  for (std::size_t end = 1; end <= text.size(); ++end) {
    std::string longest;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && stop.size() > longest.size() &&
          text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = stop;
      }
    }
    if (!longest.empty()) {
      return {text.substr(0, end - longest.size()), longest};
    }
  }
  return {text, ""};
}

void agrees_at_every_two_splits(const Strings& stops, const std::string& text) {
  const Outcome whole = expected(stops, text);
  for (std::size_t a = 0; a <= text.size(); ++a) {
    for (std::size_t b = a; b <= text.size(); ++b) {
      CHECK(match(stops, {text.substr(0, a), text.substr(a, b - a), text.substr(b)}) == whole);
    }
  }
}

void agrees_on_random_strings() {
  std::mt19937 random(3);
  const auto word = [&random](std::size_t longest) {
    std::string text;
    const std::size_t size = 1 + random() % longest;
    while (text.size() < size) {
      text += static_cast<char>('a' + random() % 2);
    }
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    Strings stops;
    for (std::size_t count = random() % 5; count > 0; --count) {
      stops.push_back(word(6));
    }
    agrees_at_every_two_splits(stops, word(12));
  }
}

void holds_back_no_more_than_it_must() {
  sprat::StopMatcher matcher({"aab", "b!"});
  std::string text;
  feed(matcher, "xaaa", text);
  CHECK(text == "xa");
  feed(matcher, "a", text);
  CHECK(text == "xaa");
  feed(matcher, "", text);
  CHECK(text == "xaa");
  matcher.flush(text);
  CHECK(text == "xaaaa");
  feed(matcher, "b!", text);  // Flushed text begins no stop string.
  CHECK(text == "xaaaa");
  CHECK(matcher.stopped() && matcher.matched() == 1);
  feed(matcher, "more", text);
  matcher.flush(text);
  CHECK(text == "xaaaa");
}

void takes_every_byte() {
  Strings stops;
  std::string all;
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
  }
  for (int byte = 0; byte < 256; ++byte) {
    stops.push_back(all.substr(static_cast<std::size_t>(byte)) + "end");
  }
  for (const std::string& stop : stops) {
    CHECK(match(stops, {stop.substr(0, stop.size() - 1)}).matched.empty());
  }
  const Outcome outcome = match(stops, {all + all + "end"});
  CHECK(outcome.text == all);
  CHECK(outcome.matched == stops[0]);
}

// Runs of one letter make every byte fall back along the failures.
void takes_long_runs_in_linear_time() {
  Strings stops;
  for (std::size_t size = 1; size <= 250; ++size) {
    stops.push_back(std::string(size, 'a') + "b");
  }
  stops.push_back(std::string(60000, 'c') + "d");
  sprat::StopMatcher matcher(stops);
  std::string text;
  for (int at = 0; at < 1 << 20; ++at) {
    matcher.feed("c", text);
  }
  CHECK(text.size() == (1 << 20) - 60000);
  matcher.feed(std::string(1 << 20, 'a'), text);
  CHECK(text.size() == (1 << 21) - 250);
  matcher.feed("b", text);
  CHECK(matcher.stopped() && matcher.matched() == 249);
  CHECK(text.size() == (1 << 21) - 250);
}

}  // namespace

int main() {
  agrees_at_every_two_splits({}, "anything");
  agrees_at_every_two_splits({"xaby", "ab"}, "xaby");
  agrees_at_every_two_splits({"ab", "xab"}, "xxab");
  agrees_at_every_two_splits({"ab", "ab"}, "ab");
  agrees_at_every_two_splits({"abcd", "bcd", "cd", "d"}, "ababcabcd");
  agrees_at_every_two_splits({"\xC3\xA9", "\xC3\xA8!"}, "\xC3\xA8\xC3\xA8\xC3\xA9");
  agrees_on_random_strings();
  holds_back_no_more_than_it_must();
  takes_every_byte();
  takes_long_runs_in_linear_time();
  return 0;
}
