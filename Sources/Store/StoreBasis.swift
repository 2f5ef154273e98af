public import Checksum
import Files
import Glibc
public import Schema

/// A basis that a new store takes on: read from a file, whole.
public struct StoredBasis: Sendable {
    /// The file that it came from, copied byte by byte.
    public let path: String
    /// Of the file's footer: the basis' name.
    public let digest: Digest
    /// The maps.
    public let basis: WhiteningBasis

    /// Reads and verifies a basis file, or the basis of the store at that path.
    public init(path: String) throws(StoreError) {
        let status = try wrapping { () throws(FileError) in try fileStatus(path) }
        guard status?.kind == .directory else {
            self.path = path
            do throws(StoreError) {
                (basis, digest) = try BasisFile.read(path)
            } catch {
                // Whatever is wrong with it is refused input, not a damaged store.
                if error.category == .environment { throw error }
                throw .basisRefused(path: path, reason: "\(error)")
            }
            return
        }
        let snapshot = try Snapshot.open(at: path)
        guard let digest = snapshot.schema.basis else { throw .basisMissing(path: path) }
        self.path = snapshot.directory.basisPath(digest)
        self.digest = digest
        guard let basis = try snapshot.readBasis() else { throw .basisMissing(path: path) }
        self.basis = basis
    }
}

extension StoreDirectory {
    /// Where whitening bases are; only in stores that have one.
    var basesPath: String { path + "/basis" }

    func basisPath(_ digest: Digest) -> String { basesPath + "/" + BasisFile.fileName(digest) }

    /// Puts a copy of a basis file under its own name, durably; does nothing if it is there and whole.
    func install(_ basis: StoredBasis) throws(StoreError) {
        let path = basisPath(basis.digest)
        try wrapping { () throws(FileError) in
            if try fileStatus(basesPath) == nil { try createDirectory(basesPath) }
        }
        if (try? BasisFile.read(path, expecting: basis.digest)) != nil { return }
        try wrapping { () throws(FileError) in
            if try fileStatus(path) != nil { try removeFile(path) }
            try copyFile(
                basis.path, temporaryPath: temporaryPath + "/" + BasisFile.fileName(basis.digest), as: path)
            try synchronizeDirectory(basesPath)
        }
        // The copy is what counts: what was read before could have changed since.
        _ = try BasisFile.read(path, expecting: basis.digest)
    }

    /// Names of the files in basis/ that do not belong to the store's basis.
    func strayBasisFiles(_ basis: Digest?) throws(FileError) -> [String] {
        guard try fileStatus(basesPath) != nil else { return [] }
        return try fileNames(inDirectory: basesPath).filter { $0 != basis.map(BasisFile.fileName) }
    }
}

extension Snapshot {
    /// The store's whitening basis, every byte verified; nil when gradients are kept as they were given.
    public func readBasis() throws(StoreError) -> WhiteningBasis? {
        guard let digest = schema.basis else { return nil }
        let path = directory.basisPath(digest)
        do {
            return try BasisFile.read(path, expecting: digest).basis
        } catch .file(.missing(_)) {
            throw .fileOfCatalogMissing(path: path)
        }
    }

    /// What is wrong with the basis file; empty for a store without one.
    func basisDamages(progress: (Int) -> Bool) -> [StoreError] {
        do {
            guard let digest = schema.basis else { return [] }
            _ = try readBasis()
            let status = try wrapping { () throws(FileError) in try fileStatus(directory.basisPath(digest)) }
            _ = progress(status?.byteCount ?? 0)
            return []
        } catch {
            return [error]
        }
    }

    /// Writes the store's basis to a path outside of it, byte by byte; nil when there is none.
    ///
    /// The path is replaced if it is taken.
    public func exportBasis(to path: String) throws(StoreError) -> Digest? {
        guard let digest = schema.basis else { return nil }
        _ = try readBasis()
        let temporaryPath = path + ".writing-" + hexadecimal(.random(in: .min ... .max))
        try wrapping { () throws(FileError) in
            if try fileStatus(path) != nil { try removeFile(path) }
            try copyFile(directory.basisPath(digest), temporaryPath: temporaryPath, as: path)
        }
        return digest
    }
}

extension StoreRepair {
    /// Looks after the basis file: puts it back from `source` when it is missing or damaged, or says that it has to be.
    ///
    /// The maps cannot be found again from whitened rows; the rows themselves stay readable.
    mutating func mendBasis(_ digest: Digest?, from source: StoredBasis?) throws {
        guard let digest else { return }
        let path = directory.basisPath(digest)
        do throws(StoreError) {
            _ = try BasisFile.read(path, expecting: digest)
        } catch {
            try refuseEnvironment([error])
            guard let source, source.digest == digest else {
                report.basisDamage = error.description
                return
            }
            report.damages.append(error.description)
            if try fileStatus(path) != nil { try quarantine(path) }
            try directory.install(source)
        }
    }
}
