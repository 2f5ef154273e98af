/// A store of gradient factors, by its path: what it is asked and what is done to it.
///
///     let database = Database(at: "train.lorif")
///     try database.ingest(["factors.safetensors"])
///     try database.fit(options: FitOptions(rank: 64))
///     let result = try database.answer(QueryRequest(queriesPath: "queries.safetensors"))
///     for answer in result.answers { print(answer.identifier, answer.top.map(\\.identifier)) }
///
/// A plain value, cheap to make: every call opens the newest generation of the store, so that readers and one writer need not know
/// of each other. Nothing is printed; long calls report to an `OperationControl` and stop when it says so. All calls throw the typed errors
/// of the layer that met the trouble: `EngineError`, `StoreError`, `InterchangeError`, `CurvatureError`, `FileError`.
public struct Database: Sendable, Hashable {
    /// The store's directory.
    public let path: String

    /// The store at a path, which need not be there yet.
    public init(at path: String) { self.path = path }
}
