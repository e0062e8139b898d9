require_relative "temporal_handler"

TemporalHandler.activity("Echo") { |_task, *args| args }

TemporalHandler.activity("Beat") do |task, count|
  1.upto(count) do |number|
    task.heartbeat(number)
    sleep(0.05)
  end
  task["heartbeat"]
end

TemporalHandler.activity("Sleep") do |task, seconds|
  now = -> { Process.clock_gettime(Process::CLOCK_MONOTONIC) }
  ends = now.call + seconds
  while now.call < ends
    task.heartbeat
    sleep(0.05)
  end
end

TemporalHandler.activity("Fail") do |_task, message|
  raise TemporalHandler::Failure.new(
    message, type: "Broken", non_retryable: true, next_retry_delay: 2.5, details: [{ why: message }]
  )
end

TemporalHandler.activity("Crash") { exit!(3) }

TemporalHandler.activity("Print") do
  puts "noise"
  "quiet"
end

TemporalHandler.activity("Raise") { raise ArgumentError, "no such picture" }

TemporalHandler.activity("NotJson") { Object.new }

if ARGV.include?("any")
  TemporalHandler.activity("*") { |task, *args| { type: task["type"], info: task["info"], args: args } }
end

TemporalHandler.run
