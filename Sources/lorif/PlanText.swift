import ArgumentParser
import Engine
import Foundation
import Schema

/// What `--explain` says.
enum Explanation: String, ExpressibleByArgument, CaseIterable {
    /// The plan; nothing is read but what planning needs.
    case plan
    /// The answer, then the plan and what was done.
    case analyze
}

/// A plan, and what was done if the query was answered, as a table.
func planTable(_ plan: Plan, _ meter: ScanMeter? = nil) -> String {
    var rows = [
        ["form", plan.form.rawValue],
        ["kernel", kernelText(plan.kernel)],
        ["layers", grouped(plan.layers.count)],
        [
            "queries",
            (plan.dampingCount > 1
                ? "\(grouped(plan.queryCount / plan.dampingCount)) × \(plan.dampingCount) dampings"
                : grouped(plan.queryCount)) + ", \(grouped(plan.queriesPerScan)) in a scan",
        ],
        ["rows", grouped(plan.rowCount)],
        ["scans", grouped(plan.scanCount)],
        ["reads", readText(plan)],
        ["arithmetic", String(format: "%.3g GFLOP", Double(plan.flopCount) / 1e9)],
        ["memory", byteText(plan.memoryBytes)],
        ["workers", grouped(plan.workers)],
        [
            "will take",
            "\(durationText(plan.preparationSeconds)) to prepare, \(durationText(plan.scanSeconds)) to scan"
                + (plan.limits.isMeasured ? "" : " (on an ordinary machine: 'lorif calibrate' measures this one)"),
        ],
    ]
    if plan.form == .coordinates || plan.coordinatesEncoding != nil {
        rows.append([
            "self-influence",
            plan.coordinatesEncoding.map {
                "coordinates (\($0.name)) of \(grouped(plan.coordinatesRowCount)) rows, factors of "
                    + grouped(plan.rowCount - plan.coordinatesRowCount)
            } ?? "factors of all rows",
        ])
    }
    guard let meter else { return table(rows) }
    let elapsed = max(meter.elapsedSeconds, 1e-9)
    rows += [
        [
            "read",
            "\(byteText(meter.factorByteCount)) of factors in \(grouped(meter.pageCount)) pages"
                + (meter.coordinatesByteCount > 0 ? ", \(byteText(meter.coordinatesByteCount)) of coordinates" : "")
                + (meter.directByteCount > 0 ? "; \(byteText(meter.directByteCount)) past the page cache" : ""),
        ],
        [
            "scored again",
            "\(grouped(meter.refinedRowCount)) of \(grouped(plan.rowCount * plan.queryCount)) rows × queries",
        ],
        [
            "took",
            "\(durationText(meter.preparationSeconds)) to prepare, \(durationText(meter.elapsedSeconds)) to scan",
        ],
        ["achieved", achievedText(plan, byteCount: meter.byteCount, elapsedSeconds: elapsed)],
        [
            "seconds of all workers",
            "reading \(decimal(meter.readSeconds, 3)), decoding \(decimal(meter.decodeSeconds, 3)), arithmetic "
                + "\(decimal(meter.arithmeticSeconds, 3)), merging \(decimal(meter.mergeSeconds, 3))",
        ],
    ]
    return table(rows)
}

/// Rates beside what the machine can do at most.
private func achievedText(_ plan: Plan, byteCount: Int, elapsedSeconds: Double) -> String {
    func of(_ limit: Double, _ value: Double, _ what: String) -> String {
        plan.limits.isMeasured && limit > 0 ? " (\(Int((100 * value / limit).rounded())) % of \(what))" : ""
    }
    let bytes = Double(byteCount) / elapsedSeconds
    let flops = Double(plan.flopCount) / elapsedSeconds
    let isFromDisk = plan.residency == .disk
    return rateText(bytes, "B/s")
        + of(
            isFromDisk ? plan.limits.diskBytesPerSecond : plan.limits.memoryBytesPerSecond, bytes,
            isFromDisk ? "the disk's" : "memory's") + ", " + rateText(flops, "FLOP/s")
        + of(plan.limits.flopsPerSecond, flops, "matrix products'") + ", "
        + rateText(Double(plan.rowCount * plan.scanCount) / elapsedSeconds, "rows/s")
}

/// Where the bytes come from, and how.
private func readText(_ plan: Plan) -> String {
    var parts: [String] = []
    let cached = plan.byteCount - plan.diskByteCount
    if cached > 0 { parts.append("\(byteText(cached)) from the page cache") }
    let buffered = plan.diskByteCount - plan.directByteCount
    if buffered > 0 { parts.append("\(byteText(buffered)) from disk") }
    if plan.directByteCount > 0 { parts.append("\(byteText(plan.directByteCount)) from disk past the page cache") }
    return parts.isEmpty ? "nothing" : parts.joined(separator: ", ")
}

private func kernelText(_ kernel: Plan.Kernel) -> String {
    switch kernel {
    case .tiles: "tiles: pages decoded to f32, matrix products"
    case .pages: "pages: multiplied where they lie"
    case .leadingPairs: "leading pairs of the queries: estimates, close rows scored again"
    case .wholeNumbers: "whole numbers: estimates, close rows scored again"
    case .tables: "tables: codes looked up, close rows scored again"
    }
}

/// A rate with a decimal prefix.
func rateText(_ value: Double, _ unit: String) -> String {
    for (prefix, scale) in [("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)] where value >= scale {
        return String(format: "%.3g %@%@", value / scale, prefix, unit)
    }
    return String(format: "%.3g %@", value, unit)
}

/// The same for programs.
struct PlanReport: Encodable {
    let form, kernel, residency: String
    let layers, queries, rows, queriesPerScan, scans, workers, bytes, diskBytes, directBytes, flops, memoryBytes: Int
    let coordinatesRows: Int
    let preparationSeconds, scanSeconds: Double
    let isCalibrated: Bool
    let coordinates: String?
    let analysis: Analysis?

    /// What was done.
    struct Analysis: Encodable {
        let factorBytes, coordinatesBytes, directBytes, pages, refinedRows: Int
        let preparationSeconds, readSeconds, decodeSeconds, arithmeticSeconds, mergeSeconds, elapsedSeconds: Double
    }

    init(_ plan: Plan, _ meter: ScanMeter? = nil) {
        form = plan.form.rawValue
        kernel = plan.kernel.rawValue
        residency = plan.residency.rawValue
        layers = plan.layers.count
        queries = plan.queryCount
        rows = plan.rowCount
        queriesPerScan = plan.queriesPerScan
        scans = plan.scanCount
        workers = plan.workers
        bytes = plan.byteCount
        diskBytes = plan.diskByteCount
        directBytes = plan.directByteCount
        preparationSeconds = plan.preparationSeconds
        scanSeconds = plan.scanSeconds
        isCalibrated = plan.limits.isMeasured
        flops = plan.flopCount
        memoryBytes = plan.memoryBytes
        coordinatesRows = plan.coordinatesRowCount
        coordinates = plan.coordinatesEncoding?.name
        analysis = meter.map {
            Analysis(
                factorBytes: $0.factorByteCount, coordinatesBytes: $0.coordinatesByteCount,
                directBytes: $0.directByteCount, pages: $0.pageCount, refinedRows: $0.refinedRowCount,
                preparationSeconds: $0.preparationSeconds, readSeconds: $0.readSeconds, decodeSeconds: $0.decodeSeconds,
                arithmeticSeconds: $0.arithmeticSeconds,
                mergeSeconds: $0.mergeSeconds, elapsedSeconds: $0.elapsedSeconds)
        }
    }
}
