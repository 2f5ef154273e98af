import Engine

// Asks a store which examples helped most: ask-example STORE QUERIES
guard CommandLine.arguments.count == 3 else { fatalError("usage: ask-example STORE QUERIES") }
prepareProcess()
let database = Database(at: CommandLine.arguments[1])
var request = QueryRequest(method: .dot, queriesPath: CommandLine.arguments[2], topCount: 3)
request.machine = MachineModel.load() ?? .standard

// Known beforehand, and nothing read but what planning needs.
let plan = try database.plan(request)
print("\(plan.rowCount) rows, \(plan.byteCount) bytes, by \(plan.kernel.rawValue)")

let result = try database.answer(request)
for answer in result.answers {
    for (rank, example) in answer.top.enumerated() {
        print("\(answer.identifier)\t\(rank + 1)\t\(example.identifier)\t\(example.score)")
    }
}
