import Checksum
import Curvature
import Engine
import Foundation
import Schema
import Store

/// Operations in words, e.g. `1.25 TFLOP`.
func operationText(_ count: Double) -> String {
    let units = [(1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")]
    let (size, name) = units.first { count >= $0.0 } ?? (1e6, "MFLOP")
    return String(format: "%.3g ", count / size) + name
}

// MARK: - Before

/// What a fit would do and cost.
func printFitOutlook(_ outlook: FitOutlook, memory: Int, json: Bool) throws {
    let plan = outlook.plan
    if json {
        return try printJSON(
            OutlookReport(
                scope: plan.scope.rawValue, rows: outlook.rowCount, passes: plan.passes, bytes: outlook.byteCount,
                flops: plan.operationCount, memoryBytes: outlook.memoryBytes, memoryBudget: memory,
                concurrentGroups: plan.concurrentGroups, workers: plan.concurrentGroups * plan.workersPerGroup,
                existing: outlook.existing?.digest.description,
                groups: outlook.groups.map {
                    OutlookReport.Group(
                        layers: $0.layerNames, gradientLength: $0.plan.gradientLength, rank: $0.plan.rank,
                        algorithm: $0.plan.algorithm.rawValue, arithmetic: $0.plan.arithmetic.rawValue,
                        solver: $0.plan.solver.rawValue, passes: $0.plan.passes, bytes: $0.byteCount,
                        flops: $0.plan.operationCount, memoryBytes: $0.plan.workingBytes + $0.plan.resultBytes)
                }))
    }
    var rows = [["layer", "D", "rank", "algorithm", "precision", "passes", "reads", "arithmetic", "memory"]]
    for group in outlook.groups {
        let layers = group.layerNames.count == 1 ? group.layerNames[0] : "all \(group.layerNames.count) layers"
        rows.append([
            layers, grouped(group.plan.gradientLength), grouped(group.plan.rank), group.plan.algorithm.rawValue,
            group.plan.arithmetic.rawValue, "\(group.plan.passes)", byteText(group.byteCount),
            operationText(group.plan.operationCount), byteText(group.plan.workingBytes + group.plan.resultBytes),
        ])
    }
    standardOutput(table(rows, right: [1, 2, 5, 6, 7, 8]))
    standardOutput(
        "\(grouped(outlook.rowCount)) rows, at most \(plan.passes) \(plan.passes == 1 ? "pass" : "passes"), "
            + "\(byteText(outlook.byteCount)) to read, about \(operationText(plan.operationCount)), "
            + "\(byteText(outlook.memoryBytes)) of memory at most (\(byteText(memory)) allowed); "
            + "\(plan.concurrentGroups) at a time\n")
    if let coordinates = outlook.coordinates {
        standardOutput("\(byteText(coordinates.memoryBytes)) of it while coordinates are written\n")
    }
    if let existing = outlook.existing {
        standardOutput("this very fit is in the store: curvature \(existing.digest.description.prefix(12))\n")
    }
}

private struct OutlookReport: Encodable {
    struct Group: Encodable {
        let layers: [String]
        let gradientLength, rank: Int
        let algorithm, arithmetic, solver: String
        let passes, bytes: Int
        let flops: Double
        let memoryBytes: Int
    }
    let scope: String
    let rows, passes, bytes: Int
    let flops: Double
    let memoryBytes, memoryBudget, concurrentGroups, workers: Int
    let existing: String?
    let groups: [Group]
}

// MARK: - After

/// The figures of a fitted group, for JSON.
struct FittedGroupReport: Encodable {
    let layers: [String]
    let gradientLength, rank: Int
    let algorithm, arithmetic, solver: String
    let trace, capturedEnergy, stableRank, conditionNumber: Double
    let largestEigenvalue, smallestEigenvalue: Double
    let passes: Int
    let orthogonalityError, residual: Double
    let spansRows: Bool

    init(_ group: FittedGroup) {
        layers = group.layerNames
        gradientLength = group.gradientLength
        rank = group.rank
        algorithm = group.algorithm
        arithmetic = group.arithmetic
        solver = group.solver
        trace = group.trace
        capturedEnergy = group.capturedEnergy
        stableRank = group.stableRank
        conditionNumber = group.conditionNumber
        largestEigenvalue = group.largestEigenvalue
        smallestEigenvalue = group.smallestEigenvalue
        passes = group.passCount
        orthogonalityError = group.orthogonalityError
        residual = group.residual
        spansRows = group.spansRows
    }
}

/// The figures of fitted groups as a table.
func fittedGroupTable(_ groups: [FittedGroup]) -> String {
    var rows = [
        [
            "layer", "D", "rank", "energy", "tr(H)", "largest s²", "stable rank", "condition", "residual",
            "orthogonality", "algorithm", "passes",
        ]
    ]
    for group in groups {
        rows.append([
            group.title, grouped(group.gradientLength), grouped(group.rank), percentText(group.capturedEnergy),
            magnitudeText(group.trace), group.rank > 0 ? magnitudeText(group.largestEigenvalue) : "–",
            String(format: "%.1f", group.stableRank), String(format: "%.3g", group.conditionNumber),
            String(format: "%.1e", group.residual), String(format: "%.1e", group.orthogonalityError),
            group.algorithm, "\(group.passCount)",
        ])
    }
    return table(rows, right: [1, 2, 3, 4, 5, 6, 7, 8, 9, 11])
}

/// What a fit did.
func printFitReport(_ report: FitReport, scope: String, exact: Bool, elapsedSeconds: Double, json: Bool) throws {
    let record = report.record
    if json {
        return try printJSON(
            FitDone(
                curvature: record.digest.description, scope: scope, exact: exact, existed: report.existed,
                resumedGroups: report.resumedGroupCount, rows: report.rowCount, bytes: record.identity.fileLength,
                bytesRead: report.byteCount, flops: report.effort.operationCount, seconds: elapsedSeconds,
                passSeconds: report.passEffort.seconds, passFlops: report.passEffort.operationCount,
                eigenSeconds: report.effort.seconds - report.passEffort.seconds,
                eigenFlops: report.effort.operationCount - report.passEffort.operationCount,
                processorSeconds: report.processorSeconds,
                peakMemoryBytes: report.peakMemoryBytes, plannedMemoryBytes: report.outlook?.memoryBytes,
                plannedFlops: report.outlook?.plan.operationCount, plannedBytesRead: report.outlook?.byteCount,
                coordinates: report.coordinates.map(CoordinatesDone.init), warnings: report.warnings,
                groups: report.groups.map(FittedGroupReport.init)))
    }
    standardOutput(fittedGroupTable(report.groups))
    let name = "curvature \(record.digest.description.prefix(12)) (\(scope))"
    if report.existed {
        standardOutput(
            "\(name) was fitted on these \(grouped(report.rowCount)) rows before; nothing to fit, it is in use\n")
        printCoordinates(report.coordinates)
        return
    }
    var text = "\(name) fitted on \(grouped(report.rowCount)) rows in \(durationText(elapsedSeconds)); "
    text += "\(byteText(record.identity.fileLength))\n"
    if report.resumedGroupCount > 0 {
        text += "\(grouped(report.resumedGroupCount)) of \(grouped(report.groups.count)) layers came from an "
        text += "interrupted fit\n"
    }
    let passes = report.groups.map(\.passCount).max() ?? 0
    text += "\(passes) \(passes == 1 ? "pass" : "passes"), \(byteText(report.byteCount)) read, "
    text += operationText(report.effort.operationCount)
    if let peak = report.peakMemoryBytes { text += ", \(byteText(peak)) of memory at most" }
    if let outlook = report.outlook {
        text += "; planned: \(operationText(outlook.plan.operationCount)), \(byteText(outlook.memoryBytes))"
    }
    standardOutput(text + "\n" + effortText(report) + "\n")
    printCoordinates(report.coordinates)
}

/// What grows with the rows and what does not, each with its rate; and the processor time of both.
private func effortText(_ report: FitReport) -> String {
    func text(_ seconds: Double, _ operations: Double) -> String {
        "\(durationText(seconds)) at \(operationText(operations / max(seconds, 1e-6)))/s"
    }
    let (all, passes) = (report.effort, report.passEffort)
    return "reading and products \(text(passes.seconds, passes.operationCount)), eigenproblems "
        + text(all.seconds - passes.seconds, all.operationCount - passes.operationCount)
        + "; \(durationText(report.processorSeconds)) of processor time"
}

private func printCoordinates(_ report: CoordinatesReport?) {
    guard let report else { return }
    standardOutput(
        "coordinates of \(grouped(report.writtenRowCount)) rows written; "
            + coordinatesText(report.coverage) + "\n")
}

/// What coordinates cover and take, in words.
func coordinatesText(_ coverage: CoordinatesCoverage?) -> String {
    guard let coverage else { return "no row has coordinates" }
    return
        "\(grouped(coverage.rowCount)) rows have theirs in \(coverage.encoding.name), \(byteText(coverage.byteCount)), "
        + "\(String(oneDecimal: coverage.bytesPerRow)) bytes/example"
}

/// Coordinates in JSON.
struct CoordinatesDone: Encodable {
    let encoding: String
    let rows, bytes: Int
    let bytesPerExample: Double
    let writtenRows: Int?

    init(_ coverage: CoordinatesCoverage) {
        encoding = coverage.encoding.name
        rows = coverage.rowCount
        bytes = coverage.byteCount
        bytesPerExample = coverage.bytesPerRow
        writtenRows = nil
    }

    init(_ report: CoordinatesReport) {
        encoding = report.encoding.name
        rows = report.coverage?.rowCount ?? 0
        bytes = report.coverage?.byteCount ?? 0
        bytesPerExample = report.coverage?.bytesPerRow ?? 0
        writtenRows = report.writtenRowCount
    }
}

private struct FitDone: Encodable {
    let curvature, scope: String
    let exact, existed: Bool
    let resumedGroups, rows, bytes, bytesRead: Int
    let flops, seconds, passSeconds, passFlops, eigenSeconds, eigenFlops, processorSeconds: Double
    let peakMemoryBytes, plannedMemoryBytes: Int?
    let plannedFlops: Double?
    let plannedBytesRead: Int?
    let coordinates: CoordinatesDone?
    let warnings: [String]
    let groups: [FittedGroupReport]
}

// MARK: - Versions

private struct VersionReport: Encodable {
    let curvature: String
    let active, current: Bool
    let scope, algorithm: String
    let rank: Int
    let capturedEnergy: Double
    let fittedRows: Int
    let generation: UInt64
    let liveRows, seenRows: Int
    let seenShare: Double
    let deletedRows, bytes: Int
    let coordinates: CoordinatesDone?

    init(_ version: CurvatureVersion, coordinates: CoordinatesReport? = nil) {
        self.coordinates = coordinates.map(CoordinatesDone.init)
        let fitted = version.record.description
        curvature = version.record.digest.description
        active = version.isActive
        current = version.coverage.isCurrent
        scope = fitted.scope
        algorithm = fitted.algorithm
        rank = fitted.rank
        capturedEnergy = fitted.capturedEnergy
        fittedRows = fitted.fittedRowCount
        generation = fitted.fittedGeneration
        liveRows = version.coverage.liveRowCount
        seenRows = version.coverage.seenRowCount
        seenShare = version.coverage.seenShare
        deletedRows = version.coverage.deletedRowCount
        bytes = version.record.identity.fileLength
    }
}

/// `fit --list`.
func printCurvatureVersions(_ versions: [CurvatureVersion], store: String, json: Bool) throws {
    if json { return try printJSON(versions.map { VersionReport($0) }) }
    guard !versions.isEmpty else { return standardOutput("no curvature; run 'lorif fit \(store)'\n") }
    var rows = [
        ["", "curvature", "scope", "rank", "energy", "algorithm", "fitted rows", "of live rows", "gone", "size"]
    ]
    for version in versions {
        let fitted = version.record.description
        rows.append([
            version.isActive ? "*" : "", String(version.record.digest.description.prefix(12)), fitted.scope,
            grouped(fitted.rank), percentText(fitted.capturedEnergy), fitted.algorithm, grouped(fitted.fittedRowCount),
            percentText(version.coverage.seenShare), grouped(version.coverage.deletedRowCount),
            byteText(version.record.identity.fileLength),
        ])
    }
    standardOutput(table(rows, right: [3, 4, 6, 7, 8, 9]))
}

/// `fit --use` and `--drop`.
func printCurvatureChange(
    _ version: CurvatureVersion, verb: String, coordinates: CoordinatesReport? = nil, json: Bool
) throws {
    if json { return try printJSON(VersionReport(version, coordinates: coordinates)) }
    let record = version.record
    var text = "curvature \(record.digest.description.prefix(12)) (\(record.description.scope), rank "
    text += "\(record.description.rank)) \(verb)"
    if verb == "removed", version.isActive { text += "; it was the one in use, now there is none" }
    standardOutput(text + "\n")
    printCoordinates(coordinates)
    if verb != "removed", let warning = version.coverage.warning { standardError("lorif: note: \(warning)\n") }
}
