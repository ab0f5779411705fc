//! Choosing instructions at run time, for every kernel of the crate.
//!
//! A kernel is code that is compiled once for each [`Level`]; one build then runs on any processor and uses what it
//! finds. [`Kernels`] says which kernels there are, what each needs at a level, and which variable of the environment
//! forces it.

use crate::error::{Error, Result, value_error};

/// Which instructions kernels use.
///
/// ```
/// use precode_core::cpu::Level;
/// assert_eq!("avx2".parse(), Ok(Level::Avx2));
/// assert!("mmx".parse::<Level>().unwrap_err().to_string().contains("portable, avx2, avx512"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// What every CPU of the target has.
    Portable,
    /// x86-64 with AVX2, FMA, BMI and POPCNT (vectors of 256 bits).
    Avx2,
    /// The same and AVX-512 F, BW, DQ and VL (vectors of 512 bits); see [`Kernels`] for what some need beside.
    Avx512,
}
named!(Level, "level", "portable" => Portable, "avx2" => Avx2, "avx512" => Avx512);

/// Kernels that are chosen together. All levels of one group give the results that its documentation promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Those of the [fused engine](crate::train::fused): results have the same bits at one level; between levels they
    /// differ by rounding.
    Fused,
    /// Those of [all pairs](crate::read::pairs) of codes, the same numbers at every level: AVX2 counts with carry-save
    /// adders and a table of nibbles, AVX-512 needs VPOPCNTDQ.
    Pairs,
    /// That which puts [pruned weights](crate::ticket::zeroing) to zero, the same values at every level.
    Zeroing,
}

impl Kernels {
    /// The environment variable that forces a level where the caller leaves the choice.
    ///
    /// ```
    /// use precode_core::cpu::Kernels;
    /// assert_eq!(Kernels::Fused.variable(), "PRECODE_FUSED_LEVEL");
    /// assert_eq!(Kernels::Pairs.variable(), "PRECODE_PAIRS_KERNEL");
    /// assert_eq!(Kernels::Zeroing.variable(), "PRECODE_ZEROING_LEVEL");
    /// ```
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Fused => "PRECODE_FUSED_LEVEL",
            Self::Pairs => "PRECODE_PAIRS_KERNEL",
            Self::Zeroing => "PRECODE_ZEROING_LEVEL",
        }
    }

    /// The levels that this processor can run, slowest first.
    ///
    /// ```
    /// use precode_core::cpu::{Kernels, Level};
    /// assert_eq!(Kernels::Pairs.available().first(), Some(&Level::Portable));
    /// assert_eq!(Kernels::Pairs.available().last(), Some(&Kernels::Pairs.best()));
    /// ```
    pub fn available(self) -> Vec<Level> {
        Level::ALL.iter().copied().filter(|&level| self.can_run(level)).collect()
    }

    /// The fastest level that this processor can run.
    pub fn best(self) -> Level {
        Level::ALL.iter().copied().rfind(|&level| self.can_run(level)).unwrap_or(Level::Portable)
    }

    fn can_run(self, level: Level) -> bool {
        match (self, level) {
            (_, Level::Portable) => true,
            #[cfg(target_arch = "x86_64")]
            (_, Level::Avx2) => has_avx2(),
            #[cfg(target_arch = "x86_64")]
            (Self::Fused | Self::Zeroing, Level::Avx512) => has_avx512(),
            #[cfg(target_arch = "x86_64")]
            (Self::Pairs, Level::Avx512) => has_avx512() && is_x86_feature_detected!("avx512vpopcntdq"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The level to run at: the one asked for, or else the one that [`variable`](Self::variable) names, or else the
    /// fastest.
    ///
    /// # Errors
    /// [`Error::Unsupported`] listing the levels that this processor can run, if it cannot run that one;
    /// [`Error::Value`] if the variable names none.
    pub fn select(self, asked: Option<Level>) -> Result<Selected> {
        let level = match (asked, std::env::var(self.variable())) {
            (Some(level), _) => level,
            (None, Ok(name)) if !name.is_empty() => name
                .parse()
                .map_err(|error| value_error!("environment variable {}: {error}", self.variable()))?,
            _ => self.best(),
        };
        if self.can_run(level) {
            return Ok(Selected { kernels: self, level });
        }
        let names: Vec<&str> = self.available().into_iter().map(Level::name).collect();
        Err(Error::Unsupported(format!(
            "level {level}: this processor does not have its instructions: use one of {}",
            names.join(", ")
        )))
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// A level that this processor can run some kernels at: only [`Kernels::select`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selected {
    kernels: Kernels,
    level: Level,
}

impl Selected {
    /// The level.
    pub fn level(self) -> Level {
        self.level
    }

    /// Runs a kernel.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        assert_eq!(self.kernels, K::GROUP, "the level was selected for kernels that need other instructions");
        match self.level {
            // The group is known when a kernel is compiled, so that it is compiled for AVX-512 once.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                if const { matches!(K::GROUP, Kernels::Pairs) } {
                    // SAFETY: whoever made this asked the CPU for its instructions.
                    unsafe { avx512_popcount(kernel) }
                } else {
                    // SAFETY: as above.
                    unsafe { avx512(kernel) }
                }
            }
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { avx2(kernel) },
            _ => kernel.portable(),
        }
    }
}

/// Code that is compiled once for every level.
///
/// All methods must be `inline(always)`, like everything that they call on vectors: only within the functions with
/// `target_feature` below does it turn into the level's instructions.
pub(crate) trait Kernel {
    /// The group that it is chosen with.
    const GROUP: Kernels;
    /// What the code returns.
    type Output;

    /// Runs on any processor.
    fn portable(self) -> Self::Output;

    /// Runs at [`Level::Avx2`].
    ///
    /// # Safety
    /// The CPU must have the level's instructions.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx2(self) -> Self::Output;

    /// Runs at [`Level::Avx512`].
    ///
    /// # Safety
    /// The CPU must have the level's instructions, and those that [`Kernels`] asks for beside.
    #[cfg(target_arch = "x86_64")]
    unsafe fn avx512(self) -> Self::Output;
}

/// # Safety
/// The CPU must have the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt")]
unsafe fn avx2<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: as the caller promises.
    unsafe { kernel.avx2() }
}

/// # Safety
/// The CPU must have the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt")]
unsafe fn avx512<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: as the caller promises.
    unsafe { kernel.avx512() }
}

/// # Safety
/// The CPU must have the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,avx2,fma,bmi1,bmi2,popcnt")]
unsafe fn avx512_popcount<K: Kernel>(kernel: K) -> K::Output {
    // SAFETY: as the caller promises.
    unsafe { kernel.avx512() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: [Kernels; 3] = [Kernels::Fused, Kernels::Pairs, Kernels::Zeroing];

    /// Says which level ran, of one of the groups.
    struct Ran<const PLACE: usize>;

    impl<const PLACE: usize> Kernel for Ran<PLACE> {
        const GROUP: Kernels = GROUPS[PLACE];
        type Output = Level;

        fn portable(self) -> Level {
            Level::Portable
        }

        #[cfg(target_arch = "x86_64")]
        unsafe fn avx2(self) -> Level {
            Level::Avx2
        }

        #[cfg(target_arch = "x86_64")]
        unsafe fn avx512(self) -> Level {
            Level::Avx512
        }
    }

    #[test]
    fn what_is_selected_runs_and_what_is_not_there_is_refused() {
        for kernels in GROUPS {
            for &level in Level::ALL {
                match kernels.select(Some(level)) {
                    Ok(selected) => {
                        let ran = match kernels {
                            Kernels::Fused => selected.run(Ran::<0>),
                            Kernels::Pairs => selected.run(Ran::<1>),
                            Kernels::Zeroing => selected.run(Ran::<2>),
                        };
                        assert_eq!((selected.level(), ran), (level, level));
                    }
                    Err(error) => {
                        assert!(!kernels.available().contains(&level));
                        let message = error.to_string();
                        assert!(matches!(error, Error::Unsupported(_)) && message.contains(level.name()));
                        assert!(message.contains("use one of portable"), "{message}");
                    }
                }
            }
        }
        // The popcount of vectors came after the first AVX-512.
        assert!(Kernels::Pairs.best() <= Kernels::Fused.best());
    }

    /// The environment is read in a process of its own, for it is shared with other tests: this test starts itself
    /// again.
    #[test]
    fn the_environment_forces_a_level() {
        const CHILD: &str = "PRECODE_TEST_LEVEL_CHILD";
        if std::env::var(CHILD).is_ok() {
            for kernels in GROUPS {
                println!("{kernels:?}: {:?}", kernels.select(None).map(Selected::level));
                assert_eq!(kernels.select(Some(Level::Portable)).unwrap().level(), Level::Portable);
            }
            return;
        }
        for kernels in GROUPS {
            let mut cases: Vec<(String, String)> = kernels
                .available()
                .into_iter()
                .map(|level| (level.to_string(), format!("{kernels:?}: Ok({level:?})")))
                .collect();
            cases.push((String::new(), format!("{kernels:?}: Ok({:?})", kernels.best())));
            cases.push(("mmx".into(), format!("{}: level 'mmx' is unknown", kernels.variable())));
            for (value, expected) in cases {
                let child = std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["--exact", "--nocapture", "cpu::tests::the_environment_forces_a_level"])
                    .envs([(CHILD, "1"), (kernels.variable(), &value)])
                    .output()
                    .unwrap();
                let printed = String::from_utf8(child.stdout).unwrap();
                assert!(child.status.success() && printed.contains(&expected), "{printed}, not {expected}");
            }
        }
    }
}
