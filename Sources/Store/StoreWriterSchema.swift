import Files
import Format
public import Schema

extension StoreWriter {
    /// Whether there is nothing at a path, so that a store can be created there.
    public static func isPathFree(_ path: String) throws(StoreError) -> Bool {
        let path = StoreDirectory.trimmed(path)
        guard try wrapping({ () throws(FileError) in try fileStatus(path) }) == nil else { return false }
        let folder = parentDirectory(of: path)
        guard try wrapping({ () throws(FileError) in try fileStatus(folder) }) != nil else {
            throw .folderMissing(path: path, folder: folder)
        }
        return true
    }

    /// Gives its layers to a store that was created without; a commit of its own.
    ///
    /// The store must have no layers, and hence no rows. `basis` must be the one that the schema names, if it names one.
    /// Throws `.schemaRefused` or `.basisRequired`.
    public func adopt(_ schema: StoreSchema, basis: StoredBasis? = nil) throws(StoreError) {
        try checkAlive()
        precondition(self.schema.layers.isEmpty && !hasPendingChanges, "the store has layers or pending rows")
        do { try schema.validate() } catch { throw .schemaRefused(error) }
        if let digest = schema.basis {
            guard let basis, basis.digest == digest else { throw .basisRequired(digest) }
            try directory.install(basis)
        }
        var next = contents
        next.schema = schema
        var changes = CatalogChanges()
        changes.put(schema.encoded(), .schema)
        try publish(changes, next)
        rows = RowAccumulator(schema: schema)
    }
}
