// (module in progress)
