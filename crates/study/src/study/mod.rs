//! Studies: grids of merges and evaluations, cell by cell.
