import ArgumentParser

/// `lorif collection`: stores and segments on many machines, by the Python package.
struct CollectionCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "collection",
        abstract: "Name stores and segments on many machines or in object stores, to ask them on a Ray cluster.",
        discussion: """
            A collection is a small JSON file of URLs, row ranges and digests. It is asked, fitted and filled by \
            'python3 -m lorif.ray', with the answers of one store that had all the rows.

              lorif collection create shards.json
              lorif collection add shards.json /data/a.lorif s3://bucket/b.lorif
              lorif collection verify shards.json
              lorif collection inspect shards.json

            Runs 'python3 -m lorif.ray collection'; LORIF_PYTHON names another interpreter. Tools/python/RAY.md has the rest.
            """)

    @Argument(parsing: .captureForPassthrough, help: "create, add, verify, inspect or use-curvature, and options.")
    var arguments: [String] = []

    func run() throws {
        try PythonModule(name: "lorif.ray", source: "'./Tools/python[ray]'")
            .run(["collection"] + arguments, help: Lorif.helpMessage(for: CollectionCommand.self))
    }
}
