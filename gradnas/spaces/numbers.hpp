// What kernels for the CPU share: whole numbers, values, and memory for them. -DREAL=float or double says what values are.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>
typedef int64_t i64;
typedef REAL T;

// Memory on the border of a cache line: half of the loads of whole vectors would cross one.
template <typename N> struct Aligned {
  typedef N value_type;
  Aligned() = default;
  template <typename M> Aligned(const Aligned<M>&) {}
  N* allocate(size_t n) { return (N*)::operator new(n * sizeof(N), std::align_val_t(64)); }
  void deallocate(N* p, size_t) { ::operator delete(p, std::align_val_t(64)); }
  template <typename M> bool operator==(const Aligned<M>&) const { return true; }
  template <typename M> bool operator!=(const Aligned<M>&) const { return false; }
};
typedef std::vector<T, Aligned<T>> Numbers;
