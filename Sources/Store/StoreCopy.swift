import Files
import Format
import Glibc
import Schema

/// What a copy did.
public struct StoreCopySummary: Hashable, Sendable {
    /// The generation that was copied; the copy's own identity is new.
    public let generation: UInt64
    /// Files that the copy shares with the store through hard links.
    public let linkedFileCount: Int
    /// Files that were copied.
    public let copiedFileCount: Int
    /// Bytes of all of them.
    public let byteCount: Int
}

extension Snapshot {
    /// Makes a store at a path that must be free, with everything that this one has in the newest generation, named snapshots included.
    ///
    /// Takes no lock: writers may go on meanwhile. Segment, curvature, coordinates and basis files, which never change, are hard links where the file system
    /// can, unless `copiesFiles`; a link shares its bytes, and hence disk errors, with the store. The whole is built beside
    /// the path, made durable and renamed. `progress` gets the bytes done since the last call and may throw to stop.
    public static func copyStore(
        at path: String, to destination: String, copiesFiles: Bool = false, progress: (Int) throws -> Void = { _ in }
    ) throws -> StoreCopySummary {
        let destination = StoreDirectory.trimmed(destination)
        guard try StoreWriter.isPathFree(destination) else { throw StoreError.pathTaken(path: destination) }
        let source = try Snapshot.open(at: path)
        let identity = StoreIdentity.random()
        StoreDirectory.sweepUnfinished(beside: destination)
        let unfinished = StoreDirectory.unfinished(.copying, of: destination, identity: identity)
        do {
            var copier = FileCopier(source: source.directory, target: unfinished, copiesFiles: copiesFiles)
            let lock = try wrapping { () throws(FileError) in
                try StoreDirectory.build(at: unfinished.path, identity: identity)
            }
            defer { withExtendedLifetime(lock) {} }
            for (index, segment) in source.segments.enumerated() {
                try copier.add(
                    "segments/" + segment.fileName, open: source.segmentSet.pinnedFile(index), progress: progress)
            }
            // A named snapshot keeps its files for as long as it is not dropped.
            let contents = source.contents
            for name in contents.segmentFileNames.subtracting(source.segments.map(\.fileName)).sorted() {
                try copier.add("segments/" + name, open: nil, progress: progress)
            }
            for name in contents.curvatureFileNames.sorted() {
                try copier.add("curvature/" + name, open: nil, progress: progress)
            }
            if let basis = source.schema.basis {
                try wrapping { () throws(FileError) in try createDirectory(unfinished.basesPath) }
                try copier.add("basis/" + BasisFile.fileName(basis), open: nil, progress: progress)
                try wrapping { () throws(FileError) in try synchronizeDirectory(unfinished.basesPath) }
            }
            try copier.addCoordinates(contents, progress: progress)
            var copy = contents
            copy.state.storeIdentity = identity
            _ = try Catalog.create(at: unfinished.catalogPath, contents: copy)
            try wrapping { () throws(FileError) in
                for directory in [unfinished.catalogPath, unfinished.segmentsPath, unfinished.curvaturePath] {
                    try synchronizeDirectory(directory)
                }
                try synchronizeDirectory(unfinished.path)
                guard try fileStatus(destination) == nil else { throw .alreadyExists(path: destination) }
                try moveDirectory(unfinished.path, to: destination)
            }
            return StoreCopySummary(
                generation: source.generation, linkedFileCount: copier.linkedFileCount,
                copiedFileCount: copier.copiedFileCount, byteCount: copier.byteCount)
        } catch {
            unfinished.removeUnfinished()
            throw error
        }
    }
}

/// Puts files of one store into another, by link or by copy.
private struct FileCopier {
    let source: StoreDirectory
    let target: StoreDirectory
    let copiesFiles: Bool
    var linkedFileCount = 0
    var copiedFileCount = 0
    var byteCount = 0

    /// `open` is the file if it is open already: its name may be gone by now, its bytes are not.
    mutating func add(_ name: String, open: ReadableFile?, progress: (Int) throws -> Void) throws {
        let (path, finalPath) = (source.path + "/" + name, target.path + "/" + name)
        if !copiesFiles, link(path, finalPath) == 0 {
            let linked = try wrapping { () throws(FileError) in try ReadableFile(path: finalPath) }
            guard open == nil || open?.identity == linked.identity else {
                throw StoreError.fileOfCatalogMissing(path: path)
            }
            linkedFileCount += 1
            byteCount += linked.byteCount
            return try progress(linked.byteCount)
        }
        let file: ReadableFile
        do {
            file = try open ?? ReadableFile(path: path)
        } catch FileError.missing {
            throw StoreError.fileOfCatalogMissing(path: path)
        } catch let error as FileError {
            throw StoreError.file(error)
        }
        try copy(file, to: finalPath, progress: progress)
        copiedFileCount += 1
        byteCount += file.byteCount
    }

    /// Coordinates are derived: one that has gone since it was listed is left out.
    mutating func addCoordinates(_ contents: CatalogContents, progress: (Int) throws -> Void) throws {
        let names = try wrapping { () throws(FileError) in try source.coordinatesFiles(contents) }
        guard !names.isEmpty else { return }
        let target = target
        try wrapping { () throws(FileError) in try createDirectory(target.coordinatesPath) }
        for name in names.sorted() {
            do {
                try add("coordinates/" + name, open: nil, progress: progress)
            } catch StoreError.fileOfCatalogMissing(_) {
                continue
            }
        }
        try wrapping { () throws(FileError) in try synchronizeDirectory(target.coordinatesPath) }
    }

    private func copy(_ file: ReadableFile, to finalPath: String, progress: (Int) throws -> Void) throws {
        do {
            var output = try DurableFile(temporaryPath: target.temporaryPath + "/copy")
            var offset = 0
            while offset < file.byteCount {
                let count = min(8 << 20, file.byteCount - offset)
                let bytes = try file.read(at: offset, count: count)
                try output.append(bytes.span.bytes)
                offset += count
                try progress(count)
            }
            try output.seal(as: finalPath)
        } catch let error as FileError {
            throw StoreError.file(error)
        }
    }
}
