#include "sprat/bert_unicode.hpp"

#include <cstdint>

#include "check.hpp"

namespace {

namespace tables = sprat::bert_unicode;

// Ascending, without overlaps, inside Unicode: what searches and loops over ranges rely on.
template <typename Table>
void is_in_order(const Table& table) {
  std::int64_t previous = -1;
  for (const auto& row : table) {
    CHECK(row.first > previous);
    CHECK(row.first <= row.last);
    CHECK(row.last < 0x110000);
    previous = row.last;
  }
}

template <typename Table>
void maps_in_order(const Table& table) {
  std::uint32_t previous = 0;
  for (const auto& row : table) {
    CHECK(row.from >= previous);
    CHECK(row.from < 0x110000);
    CHECK(row.to < 0x110000);
    previous = row.from;
  }
}

}  // namespace

int main() {
  is_in_order(tables::dropped);
  is_in_order(tables::white);
  is_in_order(tables::chinese);
  is_in_order(tables::marks);
  is_in_order(tables::punctuation);
  is_in_order(tables::ranks);
  for (const auto& row : tables::ranks) {
    CHECK(row.rank != 0);
  }
  maps_in_order(tables::decompositions);
  maps_in_order(tables::lower);
  return 0;
}
