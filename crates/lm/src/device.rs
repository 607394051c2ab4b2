//! Where models are computed, and how a failed computation becomes an error.

use candle_core::Device;
use deltaic_checkpoint::{Error, Result};

/// The device that models run on: the first CUDA or Metal device where the program was built with the feature of that name
/// and the machine has one, else the CPU.
///
/// # Errors
/// The device is there, but cannot be used.
pub fn default_device() -> Result<Device> {
    if candle_core::utils::cuda_is_available() {
        return Device::new_cuda(0).computed();
    }
    if candle_core::utils::metal_is_available() {
        return Device::new_metal(0).computed();
    }
    Ok(Device::Cpu)
}

/// Turns candle's errors into the project's.
pub trait Computed<T> {
    /// The same result with the project's error.
    ///
    /// # Errors
    /// The computation failed.
    fn computed(self) -> Result<T>;
}

impl<T> Computed<T> for candle_core::Result<T> {
    fn computed(self) -> Result<T> {
        // Shapes and ids are checked before: what is left is memory, or a fault of this program.
        self.map_err(|error| {
            Error::new(format!("the model could not be computed: {error}"))
                .help("a smaller batch or shorter texts need less memory; if that is not it, this is a bug: please report it")
        })
    }
}
