import Files
import Schema

/// What a writer does before anything else: it removes what an interrupted one has left.
///
/// Every file is written under tmp/ and named by the catalog only when it is whole, so whatever the catalog does not name is
/// garbage, and removing it is safe to interrupt and to repeat. Only the holder of the lock may do it. The finished parts of an
/// interrupted fit stay as long as the rows that it was fitted on are the live ones (`FitParts`), and coordinates, which no catalog
/// names, as long as it names their curvature and their segment.
enum Recovery {
    /// Files that the catalog does not name.
    static func orphans(
        in directory: StoreDirectory, contents: CatalogContents
    ) throws(StoreError) -> [String] {
        let segmentNames = contents.segmentFileNames
        let curvatureNames = contents.curvatureFileNames
        return try wrapping { () throws(FileError) in
            let rowDigest = contents.rowDigest
            let temporary = try fileNames(inDirectory: directory.temporaryPath)
                .filter { !FitParts.isPart($0, of: rowDigest) }
            let segments = try fileNames(inDirectory: directory.segmentsPath).filter { !segmentNames.contains($0) }
            let curvatures = try fileNames(inDirectory: directory.curvaturePath).filter { !curvatureNames.contains($0) }
            let bases = try directory.strayBasisFiles(contents.schema.basis)
            let coordinates = try directory.strayCoordinatesFiles(contents)
            return temporary.map { directory.temporaryPath + "/" + $0 }
                + segments.map { directory.segmentsPath + "/" + $0 }
                + curvatures.map { directory.curvaturePath + "/" + $0 } + bases.map { directory.basesPath + "/" + $0 }
                + coordinates.map { directory.coordinatesPath + "/" + $0 }
        }
    }

    /// Removes the orphans and gives their paths.
    static func sweep(_ directory: StoreDirectory, contents: CatalogContents) throws(StoreError) -> [String] {
        let paths = try orphans(in: directory, contents: contents)
        try wrapping { () throws(FileError) in
            for path in paths { try removeFile(path) }
            guard !paths.isEmpty else { return }
            for path in [directory.temporaryPath, directory.segmentsPath, directory.curvaturePath] {
                try synchronizeDirectory(path)
            }
        }
        return paths
    }
}
