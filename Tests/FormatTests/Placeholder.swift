// Filled by the format tests.
