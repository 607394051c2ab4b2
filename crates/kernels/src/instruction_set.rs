//! Which instruction sets there are, and which of them this machine has.

use std::fmt;

/// An instruction set that the kernels are compiled for.
///
/// All of them give the same bytes, so the choice is one of speed only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InstructionSet {
    /// What every processor of the architecture has: SSE2 on x86-64, NEON on AArch64.
    Portable,
    /// x86-64 with AVX2 and BMI.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AArch64 with NEON.
    Neon,
}

impl InstructionSet {
    /// All of them, the best last.
    pub const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// The fastest one that this machine has.
    pub fn detect() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }

    /// Those that this machine has, the best last; [`Portable`](Self::Portable) is always the first.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|set| set.is_available())
    }

    /// Whether this machine has it. The standard library asks the processor once and remembers.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("bmi1") && is_x86_feature_detected!("bmi2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns, reason = "which arms stand above depends on the architecture")]
            _ => false,
        }
    }

    /// Its name in flags and reports: `portable`, `avx2`, `avx512` or `neon`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// The one with this [`name`](Self::name), whether or not this machine has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|set| set.name() == name)
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::InstructionSet;

    #[test]
    fn every_name_leads_back_to_its_instruction_set() {
        for set in InstructionSet::ALL {
            assert_eq!(InstructionSet::from_name(set.name()), Some(set));
        }
        assert_eq!(InstructionSet::from_name("mmx"), None);
    }

    #[test]
    fn the_best_one_is_among_the_available_and_portable_always_is() {
        assert!(InstructionSet::available().any(|set| set == InstructionSet::detect()));
        assert_eq!(InstructionSet::available().next(), Some(InstructionSet::Portable));
    }
}
