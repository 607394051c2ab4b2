//! One safe source per kernel, compiled once per instruction set: the place where the choice is made.

use crate::InstructionSet;

/// A loop that [`Kernels::run`] compiles once for every instruction set.
///
/// The value holds the slices and numbers that the loop works on. How to write one, in any crate:
///
/// ```
/// use deltaic_kernels::{Kernel, Kernels};
///
/// /// `out = max(x, y)`.
/// struct Larger<'a> {
///     out: &'a mut [f32],
///     x: &'a [f32],
///     y: &'a [f32],
/// }
///
/// impl Kernel for Larger<'_> {
///     type Output = ();
///
///     #[inline(always)]
///     fn run(self) {
///         for ((out, &x), &y) in self.out.iter_mut().zip(self.x).zip(self.y) {
///             *out = if x > y { x } else { y };
///         }
///     }
/// }
///
/// let mut out = [0.0; 3];
/// Kernels::detect().run(Larger { out: &mut out, x: &[1.0, 2.0, 3.0], y: &[3.0, 2.0, 1.0] });
/// assert_eq!(out, [3.0, 2.0, 3.0]);
/// ```
///
/// - `run` and the functions that it calls are marked `#[inline(always)]`: only what is inlined is compiled for the instruction set.
/// - No branches in the inner loop; select between values that are there (`if` as an expression, nothing computed in its arms).
/// - Many inputs at once: inner loops over arrays of 64 (`x.as_chunks::<64>()`), sums in local arrays, and the rest one by one.
///   `cargo bench -p deltaic-kernels` tells at once what the compiler made of it: a scalar loop is ten times slower.
/// - Never `mul_add`, never sums that the loop's order does not fix (`iter().sum()` of floats is in order and so is slow): the bytes
///   would be another machine's. Rust itself neither reorders nor fuses.
pub trait Kernel {
    /// What it gives back: `()`, or a count.
    type Output;

    /// Runs the loop; implementations mark it `#[inline(always)]`.
    fn run(self) -> Self::Output;
}

/// A handle on the kernels of one instruction set that this machine has: having one is the proof.
///
/// The kernels of this crate are its methods; [`run`](Self::run) is the way for all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernels {
    // Invariant: `instruction_set.is_available()`. The two constructors below see to it; `run` depends on it.
    instruction_set: InstructionSet,
}

impl Kernels {
    /// The kernels of the best instruction set of this machine.
    pub fn detect() -> Self {
        Self { instruction_set: InstructionSet::detect() }
    }

    /// The kernels of this instruction set, or `None` where this machine does not have it.
    pub fn with(instruction_set: InstructionSet) -> Option<Self> {
        instruction_set.is_available().then_some(Self { instruction_set })
    }

    /// The instruction set that these kernels use.
    pub fn instruction_set(self) -> InstructionSet {
        self.instruction_set
    }

    /// Runs a kernel, compiled for this handle's instruction set.
    #[inline]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.instruction_set {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: by the invariant of `Kernels`, this machine has the instruction set's features, all that the function asks for.
            InstructionSet::Avx512 => unsafe { run_avx512(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            InstructionSet::Avx2 => unsafe { run_avx2(kernel) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            InstructionSet::Neon => unsafe { run_neon(kernel) },
            _ => kernel.run(),
        }
    }
}

// `fma` is left out on purpose: nothing here may be fused, and AVX2 without it exists. (avx512f implies it; Rust still never fuses.)

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2")]
fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2")]
fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn run_neon<K: Kernel>(kernel: K) -> K::Output {
    kernel.run()
}
