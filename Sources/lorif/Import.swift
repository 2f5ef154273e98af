import ArgumentParser

/// `lorif import`: gradient stores of other programs, read by the Python package.
struct Import: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take over a gradient store of LogIX, bergson, dattri, TRAK or NumPy files.",
        discussion: """
            Reads the other program's files, turns every gradient so that the input side comes first, factors to --rank on the \
            way, and makes all rows visible by one commit. An interrupted import goes on where it stopped when it is repeated.

              lorif import bergson index/ store --rank 4 --queries query-index/
              lorif import logix logix/my-project store
              lorif import dattri cache/ store --layout matrix

            Runs 'python3 -m lorif.importers'; LORIF_PYTHON names another interpreter. 'lorif import --help' has its options, \
            and Tools/python/IMPORTING.md what is read and what is refused.
            """)

    @Argument(parsing: .captureForPassthrough, help: "FORMAT SOURCE STORE and options.")
    var arguments: [String] = []

    func run() throws {
        try PythonModule(name: "lorif.importers", source: "./Tools/python")
            .run(arguments, help: Lorif.helpMessage(for: Import.self))
    }
}
