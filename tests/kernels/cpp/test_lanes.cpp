#include "sprat/lanes.hpp"

#include <cmath>
#include <cstddef>
#include <limits>

#include "check.hpp"

namespace {

template <typename L>
SPRAT_INLINE void exp_all_body(float* values) {
  for (std::size_t i = 0; i < 8; i += L::size) {
    typename L::Floats v;
    L::load(values + i, v);
    L::exp(v);
    L::store(v, values + i);
  }
}
SPRAT_VARIANTS(void, exp_all, (float* values), (values))

template <typename L>
SPRAT_INLINE void reduces_body() {
  constexpr float values[] = {3.0F, -1.0F, 4.0F, 1.5F, -5.0F, 9.0F, 2.0F, 6.0F};
  for (std::size_t some = 1; some <= L::size; ++some) {
    float total = 0.0F;
    float most = sprat::lowest;
    for (std::size_t lane = 0; lane < some; ++lane) {
      total += values[lane];
      most = std::fmax(most, values[lane]);
    }
    typename L::Floats v;
    L::load(values, some, v);
    CHECK(L::greatest(v) == most);
    CHECK(L::sum(v) == (some == L::size ? total : sprat::lowest));
    float stored[8] = {};
    L::store(v, some, stored);
    for (std::size_t lane = 0; lane < 8; ++lane) {
      CHECK(stored[lane] == (lane < some ? values[lane] : 0.0F));
    }
    typename L::Ints bits = {};
    CHECK(!L::any(bits));
    bits[some - 1] = 8;
    CHECK(L::any(bits));
  }
}
SPRAT_VARIANTS(void, reduces, (), ())

void exponentials_are_close(sprat::Isa isa) {
  for (float x = 0.0F; x > -90.0F; x -= 0.003F) {
    float values[8] = {x, x, x, x, x, x, x, x};
    SPRAT_DISPATCH(isa, exp_all, (values));
    const double expected = std::exp(static_cast<double>(x));
    for (const float value : values) {
      if (x < sprat::exp_floor) {
        CHECK(value == 0.0F);
      } else {
        CHECK(std::abs(value - expected) <= 1e-7 * (2.0 - x) * expected);
      }
    }
  }
  constexpr float infinity = std::numeric_limits<float>::infinity();
  float values[8] = {0.0F,   -0.0F,     sprat::exp_floor, -1e-45F,
                     -1e30F, -infinity, -87.01F,          std::numeric_limits<float>::quiet_NaN()};
  SPRAT_DISPATCH(isa, exp_all, (values));
  CHECK(values[0] == 1.0F);
  CHECK(values[1] == 1.0F);
  CHECK(values[2] >= std::numeric_limits<float>::min());
  CHECK(values[3] == 1.0F);
  for (std::size_t i = 4; i < 8; ++i) {
    CHECK(values[i] == 0.0F);
  }
}

}  // namespace

int main() {
  for (const sprat::Isa isa : {sprat::Isa::baseline, sprat::Isa::avx2}) {
    if (sprat::supports(isa)) {
      SPRAT_DISPATCH(isa, reduces, ());
      exponentials_are_close(isa);
    }
  }
  return 0;
}
