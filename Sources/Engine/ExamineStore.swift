import Files
import Store

extension Database {
    /// What of the store and of where it lies needs attention: its file system, its state, and a quick verification.
    public func examine() -> [Finding] {
        let snapshot: Snapshot
        do {
            snapshot = try Snapshot.open(at: path)
        } catch {
            let advice =
                switch error.category {
                case .damaged: "'lorif repair \(path)' saves what can be saved"
                case .environment: "make the path readable for this user"
                case .refused: "name a store; 'lorif create' or 'lorif ingest' makes one"
                }
            return [Finding("store", "opens", error.description, level: .fail, advice: advice)]
        }
        let byteCount = snapshot.segments.reduce(0) { $0 + $1.identity.fileLength }
        var findings = [
            Finding(
                "store", "opens",
                "generation \(snapshot.generation), \(snapshot.rowCount) examples, \(snapshot.segments.count) "
                    + (snapshot.segments.count == 1 ? "segment" : "segments"))
        ]
        findings += placeFindings(byteCount: byteCount)
        findings += readingFindings(snapshot)
        findings += stateFindings(snapshot)
        let report = snapshot.verify(level: .quick) { _ in true }
        findings.append(
            report.isSound
                ? Finding("store", "quick verification", "sound; 'lorif verify \(path)' checks every byte")
                : Finding(
                    "store", "quick verification", report.damages.map(\.description).joined(separator: "; "),
                    level: .fail,
                    advice: "'lorif verify \(path)' names all damage, 'lorif repair \(path)' saves what can be saved"))
        return findings
    }

    /// The file system, its room, and what it can do.
    private func placeFindings(byteCount: Int) -> [Finding] {
        var findings: [Finding] = []
        do {
            let system = try FileSystem(of: path)
            findings.append(
                Finding(
                    "store", "file system", system.kind, level: system.isRemote ? .warn : .ok,
                    advice: system.isRemote
                        ? "locks and mapped files are certain on local disks only: let one machine write, and query copies ('lorif copy')"
                        : nil))
            let isFull = system.availableByteCount < max(1 << 30, byteCount / 10)
            findings.append(
                Finding(
                    "store", "free space",
                    "\(system.availableByteCount >> 20) MiB beside \(byteCount >> 20) MiB of segments",
                    level: isFull ? .warn : .ok,
                    advice: isFull ? "compacting writes segments anew before it removes the old ones; make room" : nil))
        } catch {
            findings.append(
                Finding("store", "file system", error.description, level: .fail, advice: "make the path readable"))
        }
        let isDurable = canSynchronize(directory: path)
        findings.append(
            Finding(
                "store", "durable commits", isDurable ? "the folder can be synchronized" : "fsync of the folder fails",
                level: isDurable ? .ok : .fail,
                advice: isDurable ? nil : "a commit could be lost with the power; keep stores on another file system"))
        if !isWritable(path) {
            findings.append(
                Finding("store", "permission", "read only: it can be asked, and not changed"))
        }
        return findings
    }

    /// How the first segment can be read.
    private func readingFindings(_ snapshot: Snapshot) -> [Finding] {
        guard !snapshot.segments.isEmpty else { return [] }
        do {
            let reader = try snapshot.segmentReader(0)
            let isDirect = reader.canReadDirectly
            var findings = [
                Finding(
                    "store", "direct reads",
                    isDirect ? "possible" : "not on this file system: everything goes through the page cache")
            ]
            let resident = try snapshot.segments.indices.reduce(0 as Int?) { sum, index in
                guard let sum, let bytes = try snapshot.segmentReader(index).residentByteCount else { return nil }
                return sum + bytes
            }
            if let resident { findings.append(Finding("store", "in memory", "\(resident >> 20) MiB of the segments")) }
            return findings
        } catch {
            return [
                Finding(
                    "store", "reading", "\(error)", level: .fail,
                    advice: "'lorif verify \(path)' names all damage, 'lorif repair \(path)' saves what can be saved")
            ]
        }
    }

    /// What a fit or a compaction would better.
    private func stateFindings(_ snapshot: Snapshot) -> [Finding] {
        var findings: [Finding] = []
        if let active = snapshot.curvatures.first(where: { $0.digest == snapshot.activeCurvature }) {
            let coverage = snapshot.coverage(of: active)
            findings.append(
                Finding(
                    "store", "curvature",
                    coverage.isCurrent
                        ? "fitted on all \(coverage.fittedRowCount) examples"
                        : "has seen \(Int(100 * coverage.seenShare)) % of the examples, and \(coverage.deletedRowCount) that are gone",
                    level: coverage.isCurrent ? .ok : .warn,
                    advice: coverage.isCurrent ? nil : "'lorif fit \(path)' brings it up to date"))
        } else if snapshot.rowCount > 0 {
            findings.append(
                Finding(
                    "store", "curvature", "none", level: .warn,
                    advice: "influence needs one: 'lorif fit \(path)'; dot and cosine do not"))
        }
        let all = snapshot.rowCount + snapshot.deletedRowCount
        let isSparse = snapshot.deletedRowCount * 5 > all
        findings.append(
            Finding(
                "store", "deleted examples", "\(snapshot.deletedRowCount) of \(all)", level: isSparse ? .warn : .ok,
                advice: isSparse ? "they still take room and are read past; 'lorif compact \(path)' drops them" : nil))
        let isScattered = snapshot.segments.count > 64 && all / snapshot.segments.count < 1000
        if isScattered {
            findings.append(
                Finding(
                    "store", "small segments", "\(all / snapshot.segments.count) examples in each", level: .warn,
                    advice: "'lorif compact \(path)' merges them"))
        }
        return findings
    }
}
