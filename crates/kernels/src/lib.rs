//! The arithmetic of merging: slices in, slices out. No I/O, no allocation, no knowledge of models.
//!
//! Everything hangs on [`Kernels`], a small `Copy` handle that stands for one instruction set which this machine has:
//!
//! ```
//! use deltaic_kernels::{FloatFormat, Kernels};
//!
//! let kernels = Kernels::detect();
//! let mut values = [0.0_f32; 2];
//! kernels.widen(FloatFormat::BF16, &[0x80, 0x3f, 0x00, 0xc0], &mut values); // 1 and -2
//! kernels.scale(&mut values, 0.5);
//! assert_eq!(values, [0.5, -1.0]);
//! ```
//!
//! **One source, every instruction set.** A kernel is a safe loop over slices. [`Kernels::run`] compiles it once per instruction set
//! and picks the right one at run time; a merge method in another crate does the same with its own [`Kernel`]. No intrinsics: the
//! loops are written so that the compiler vectorises them, the mask's words included. The only `unsafe` is the call in [`Kernels::run`].
//!
//! **Equal bytes.** Every instruction set gives the same bits: IEEE 754 arithmetic in the order that is written, no fused
//! multiply-add, reductions in 16 fixed lanes. The one thing that hardware may choose is the sign and payload of a NaN, and
//! [`Kernels::narrow`] writes every NaN as one pattern.
//!
//! **Block sizes.** Callers pass blocks of about 1024 elements, so that several kernels in a row work in the first-level cache;
//! every length is correct. Slices that belong together have the same number of elements: otherwise a kernel panics, which is a
//! fault of the caller and never of a user's file.

mod consensus;
mod dispatch;
mod elementwise;
mod format;
mod instruction_set;
mod mask;
mod order_statistics;
mod reduction;
mod signed_order;
mod trim;

pub use consensus::ElectedSigns;
pub use dispatch::{Kernel, Kernels};
pub use format::FloatFormat;
pub use instruction_set::InstructionSet;
pub use mask::{MaskKey, threshold};
pub use order_statistics::{HIGH_BINS, LOW_BINS, magnitude_bits, magnitude_of_bins, rank_in};
pub use reduction::{LANES, LaneSums, REDUCTION_BLOCK, ordered_sum};
pub use signed_order::{NO_SLOT, NON_FINITE_BINS, ORDERED_BINS, ORDERED_BITS, REFINED_BINS, from_ordered_bits, ordered_bits};
pub use trim::Ties;
