import ArgumentParser

/// What every command has that may take long.
struct ProgressOptions: ParsableArguments {
    @Flag(help: "Show no progress on standard error; errors and notes still are.")
    var quiet = false
}
