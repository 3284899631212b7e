"""Events as columns of a user's files: npz, HDF5, parquet, ROOT; the data of the generic taggers."""
