#include "sprat/static.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "check.hpp"

namespace {

constexpr std::size_t width = 70;
constexpr std::int32_t unknown = 0;

const std::vector<std::u32string> words = {U"[UNK]", U"un", U"##aff", U"##able", U"!", U"a"};

sprat::WordPiece tokenizer() {
  std::vector<sprat::WordPieceToken> vocabulary;
  for (const std::u32string& word : words) {
    vocabulary.push_back({word, static_cast<std::int32_t>(vocabulary.size())});
  }
  sprat::WordPieceSettings settings;
  settings.unknown = unknown;
  return {settings, vocabulary, U"##", {}};
}

// Small values that all types hold exactly. A buffer of exactly this size: AddressSanitizer sees a
// read past it.
template <typename T, typename Make>
std::vector<T> table(Make make) {
  std::vector<T> values;
  for (std::size_t i = 0; i < words.size() * width; ++i) {
    values.push_back(make(static_cast<int>(i * 7 % 3) - 1));
  }
  return values;
}

struct Result {
  std::vector<float> vectors;
  std::vector<std::int64_t> tokens, dropped;
};

Result encode(const sprat::StaticEmbedding& bag, const std::vector<std::u32string>& texts,
              const sprat::WordPieceOptions& options, sprat::Isa isa) {
  std::vector<std::vector<std::uint16_t>> units;
  for (const std::u32string& text : texts) {
    units.emplace_back(text.begin(), text.end());
  }
  std::vector<sprat::TextView> views;
  for (const std::vector<std::uint16_t>& each : units) {
    views.push_back({each.data(), each.size(), 2});
  }
  Result result{std::vector<float>(texts.size() * width, -9.0F),
                std::vector<std::int64_t>(texts.size(), -9),
                std::vector<std::int64_t>(texts.size(), -9)};
  bag.encode(views, options, result.vectors.data(), result.tokens.data(), result.dropped.data(),
             isa);
  return result;
}

void check_mean(const Result& result, std::size_t text, const std::vector<std::size_t>& ids) {
  for (std::size_t h = 0; h < width; ++h) {
    float sum = 0.0F;
    for (const std::size_t id : ids) {
      sum += static_cast<float>(static_cast<int>((id * width + h) * 7 % 3) - 1);
    }
    const float mean = ids.empty() ? 0.0F : sum / static_cast<float>(ids.size());
    CHECK(std::abs(result.vectors[text * width + h] - mean) <= 1e-6F);
  }
}

template <typename T, typename Make>
void averages_known_tokens(sprat::TableType type, Make make) {
  const std::vector<T> values = table<T>(make);
  const sprat::StaticEmbedding bag(tokenizer(), values.data(), type, width, {}, {}, false);
  CHECK(bag.width() == width);
  for (const sprat::Isa isa : {sprat::Isa::baseline, sprat::Isa::avx2}) {
    if (!sprat::supports(isa)) {
      continue;
    }
    sprat::WordPieceOptions options;
    Result result = encode(bag, {U"Unaffable!", U"xyz a", U"", U"xyz"}, options, isa);
    CHECK((result.tokens == std::vector<std::int64_t>{4, 1, 0, 0}));
    CHECK((result.dropped == std::vector<std::int64_t>{0, 0, 0, 0}));
    check_mean(result, 0, {1, 2, 3, 4});
    check_mean(result, 1, {5});
    check_mean(result, 2, {});
    check_mean(result, 3, {});
    options.max_tokens = 2;
    options.count_dropped = true;
    result = encode(bag, {U"xyz ! a a", U"a"}, options, isa);
    CHECK((result.tokens == std::vector<std::int64_t>{1, 1}));
    CHECK((result.dropped == std::vector<std::int64_t>{2, 0}));
    check_mean(result, 0, {4});
  }
}

void weighs_and_shares_rows() {
  const std::vector<float> values =
      table<float>([](int value) { return static_cast<float>(value); });
  const sprat::StaticEmbedding bag(tokenizer(), values.data(), sprat::TableType::float32, width,
                                   {1, 2, 0, 1, 1, 3}, {0, 5, 1, 1, 1, 5}, true);
  // Both words have row 5, with weights 2 and 3: the direction is that of the row.
  const Result result = encode(bag, {U"un a"}, {}, sprat::active_isa());
  double squares = 0.0;
  for (std::size_t h = 0; h < width; ++h) {
    squares += static_cast<double>(values[5 * width + h]) * values[5 * width + h];
  }
  for (std::size_t h = 0; h < width; ++h) {
    CHECK(std::abs(result.vectors[h] - values[5 * width + h] / std::sqrt(squares)) <= 1e-6);
  }
}

}  // namespace

int main() {
  averages_known_tokens<std::int8_t>(sprat::TableType::int8,
                                     [](int value) { return static_cast<std::int8_t>(value); });
  averages_known_tokens<sprat::Half>(sprat::TableType::float16, [](int value) {
    return sprat::Half{static_cast<std::uint16_t>(value == 0 ? 0 : value < 0 ? 0xBC00 : 0x3C00)};
  });
  averages_known_tokens<float>(sprat::TableType::float32,
                               [](int value) { return static_cast<float>(value); });
  weighs_and_shares_rows();
  return 0;
}
