//! Statistics that merge methods take: squared gradients (Fisher merging) and Gram matrices of linear layers' inputs (RegMean).
