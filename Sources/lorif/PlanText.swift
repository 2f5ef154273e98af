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
        ["reads", "\(byteText(plan.byteCount)) from \(plan.residency == .memory ? "the page cache" : "disk")"],
        ["arithmetic", String(format: "%.3g GFLOP", Double(plan.flopCount) / 1e9)],
        ["memory", byteText(plan.memoryBytes)],
        ["workers", grouped(plan.workers)],
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
                + (meter.coordinatesByteCount > 0 ? ", \(byteText(meter.coordinatesByteCount)) of coordinates" : ""),
        ],
        [
            "scored again",
            "\(grouped(meter.refinedRowCount)) of \(grouped(plan.rowCount * plan.queryCount)) rows × queries",
        ],
        ["scanned in", "\(durationText(meter.elapsedSeconds)), \(rate(Double(meter.byteCount) / elapsed, "B/s"))"],
        [
            "achieved",
            "\(rate(Double(plan.flopCount) / elapsed, "FLOP/s")), "
                + "\(rate(Double(plan.rowCount * plan.scanCount) / elapsed, "rows/s"))",
        ],
        [
            "seconds of all workers",
            "reading \(decimal(meter.readSeconds, 3)), decoding \(decimal(meter.decodeSeconds, 3)), arithmetic "
                + "\(decimal(meter.arithmeticSeconds, 3)), merging \(decimal(meter.mergeSeconds, 3))",
        ],
    ]
    return table(rows)
}

private func kernelText(_ kernel: Plan.Kernel) -> String {
    switch kernel {
    case .tiles: "tiles: pages decoded to f32, matrix products"
    case .pages: "pages: multiplied where they lie"
    case .leadingPairs: "leading pairs of the queries: estimates, close rows scored again"
    case .tables: "tables: codes looked up, close rows scored again"
    }
}

/// A rate with a decimal prefix.
private func rate(_ value: Double, _ unit: String) -> String {
    for (prefix, scale) in [("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)] where value >= scale {
        return String(format: "%.3g %@%@", value / scale, prefix, unit)
    }
    return String(format: "%.3g %@", value, unit)
}

/// The same for programs.
struct PlanReport: Encodable {
    let form, kernel, residency: String
    let layers, queries, rows, queriesPerScan, scans, workers, bytes, flops, memoryBytes, coordinatesRows: Int
    let coordinates: String?
    let analysis: Analysis?

    /// What was done.
    struct Analysis: Encodable {
        let factorBytes, coordinatesBytes, pages, refinedRows: Int
        let readSeconds, decodeSeconds, arithmeticSeconds, mergeSeconds, elapsedSeconds: Double
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
        flops = plan.flopCount
        memoryBytes = plan.memoryBytes
        coordinatesRows = plan.coordinatesRowCount
        coordinates = plan.coordinatesEncoding?.name
        analysis = meter.map {
            Analysis(
                factorBytes: $0.factorByteCount, coordinatesBytes: $0.coordinatesByteCount, pages: $0.pageCount,
                refinedRows: $0.refinedRowCount,
                readSeconds: $0.readSeconds, decodeSeconds: $0.decodeSeconds, arithmeticSeconds: $0.arithmeticSeconds,
                mergeSeconds: $0.mergeSeconds, elapsedSeconds: $0.elapsedSeconds)
        }
    }
}
