#include "sprat/isa.hpp"

#include <cstdlib>

#include "check.hpp"

int main() {
  CHECK(sprat::supports(sprat::Isa::baseline));
  CHECK(setenv("SPRAT_ISA", "baseline", 1) == 0);
  CHECK(sprat::active_isa() == sprat::Isa::baseline);
  // Chosen once: kernels never change their minds within a process.
  CHECK(unsetenv("SPRAT_ISA") == 0);
  CHECK(sprat::active_isa() == sprat::Isa::baseline);
  return 0;
}
