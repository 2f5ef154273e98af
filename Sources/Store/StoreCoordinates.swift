public import Checksum
import Files
import Glibc
public import Schema

// Coordinates are derived data: no catalog names them, each file names the curvature and the segment that it belongs to, and one
// that is missing, foreign or damaged costs nothing but the time to compute it.

extension StoreDirectory {
    /// Where coordinates are; only in stores that have had some.
    var coordinatesPath: String { path + "/coordinates" }

    func coordinatesPath(curvature: Digest, segment: SegmentInfo) -> String {
        let name = CoordinatesDescription.fileName(curvature: curvature, segment: segment.identity.footerDigest)
        return coordinatesPath + "/" + name
    }

    /// Names of the files in coordinates/ whose curvature and segment the catalog names.
    func coordinatesFiles(_ contents: CatalogContents) throws(FileError) -> [String] {
        try partedCoordinatesFiles(contents).named
    }

    /// Names of all others.
    func strayCoordinatesFiles(_ contents: CatalogContents) throws(FileError) -> [String] {
        try partedCoordinatesFiles(contents).stray
    }

    private func partedCoordinatesFiles(
        _ contents: CatalogContents
    ) throws(FileError) -> (named: [String], stray: [String]) {
        guard try fileStatus(coordinatesPath) != nil else { return ([], []) }
        let curvatures = Set(contents.curvatureFileNames.map { String($0.prefix(32)) })
        let segments = Set(contents.segmentsByDigest.keys)
        var parted: (named: [String], stray: [String]) = ([], [])
        for name in try fileNames(inDirectory: coordinatesPath) {
            let parts = name.split(separator: ".").first?.split(separator: "-").map(String.init) ?? []
            if parts.count == 2, name == "\(parts[0])-\(parts[1]).coordinates", curvatures.contains(parts[0]),
                segments.contains(parts[1])
            {
                parted.named.append(name)
            } else {
                parted.stray.append(name)
            }
        }
        return parted
    }

    /// Removes coordinates that belong to nothing any more. Best effort: the next writer sweeps what is left.
    func removeStrayCoordinates(_ contents: CatalogContents) {
        for name in (try? strayCoordinatesFiles(contents)) ?? [] { unlink(coordinatesPath + "/" + name) }
    }
}

extension CatalogContents {
    /// The segments of this generation and of named ones, by the text of their footer's digest.
    var segmentsByDigest: [String: SegmentInfo] {
        var found: [String: SegmentInfo] = [:]
        for segment in segments + snapshots.values.flatMap(\.segments) {
            found[segment.identity.footerDigest.description] = segment
        }
        return found
    }
}

extension Snapshot {
    /// The coordinates of a segment's rows in a curvature; nil if there are none.
    ///
    /// Reads header, footer and description. Throws what is wrong with a file that cannot be used.
    public func coordinates(of curvature: Digest, segment index: Int) throws(StoreError) -> CoordinatesReader? {
        let segment = segments[index]
        let path = directory.coordinatesPath(curvature: curvature, segment: segment)
        do throws(StoreError) {
            return try CoordinatesReader(path: path, curvature: curvature, segment: segment)
        } catch {
            if case .file(.missing(_)) = error { return nil }
            throw error
        }
    }

    /// What the coordinates of a curvature cover and take; nil if there are none that can be used.
    public func coordinatesCoverage(of curvature: Digest) -> CoordinatesCoverage? {
        var coverage: CoordinatesCoverage?
        for index in segments.indices {
            guard let reader = (try? coordinates(of: curvature, segment: index)) ?? nil else { continue }
            var sum =
                coverage
                ?? CoordinatesCoverage(
                    encoding: reader.description.encoding, rowCount: 0, storedRowCount: 0, byteCount: 0)
            sum.rowCount += liveRowCount(segment: index)
            sum.storedRowCount += segments[index].rowCount
            sum.byteCount += reader.byteCount
            coverage = sum
        }
        return coverage
    }
}

/// How many rows have coordinates, and what these take.
public struct CoordinatesCoverage: Hashable, Sendable {
    /// How they are kept: that of the first segment that has some.
    public let encoding: Encoding
    /// Live rows that have them.
    public fileprivate(set) var rowCount: Int
    /// Rows that have them, deleted ones included.
    public fileprivate(set) var storedRowCount: Int
    /// Bytes of the files.
    public fileprivate(set) var byteCount: Int

    /// Bytes of the files for each row in them.
    public var bytesPerRow: Double { storedRowCount > 0 ? Double(byteCount) / Double(storedRowCount) : 0 }
}

extension StoreWriter {
    /// Begins a coordinates file of a segment of the store, which becomes part of it when it is sealed.
    ///
    /// No commit: coordinates say nothing that curvature and segment do not say. One that is there is replaced.
    public func beginCoordinates(_ description: CoordinatesDescription) throws(StoreError) -> CoordinatesWriter {
        try checkAlive()
        let directory = directory
        try wrapping { () throws(FileError) in
            guard try fileStatus(directory.coordinatesPath) == nil else { return }
            try createDirectory(directory.coordinatesPath)
            try synchronizeDirectory(directory.path)
        }
        return try CoordinatesWriter(description, directory: directory)
    }
}
