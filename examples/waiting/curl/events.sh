#!/usr/bin/env bash
# Follow a job as it goes: ./events.sh workflow.json tells its news as they come, one a line.
# A connection that breaks is made anew with the id of the last event, and goes on there: nothing is lost or told twice.
source "$(dirname "$0")/hearth.sh"

id=$(job_of "$1" | submit)
events="$HEARTH_URL/api/v1/jobs/$id/events"
last='' event='' data='' ended=''
while [[ -z $ended ]]; do
    while IFS= read -r -t 45 line; do # something comes every 15 s at least
        case $line in
            event:*) event=${line#event: } data='' ;;
            id:*) next=${line#id: } ;;
            data:*) data+=${line#data: } ;;
            '') # the event is whole
                if [[ -n $data ]]; then
                    last=$next
                    if [[ $event == end ]]; then ended=$data; else echo "$event $data" >&2; fi
                    data=''
                fi
                ;;
        esac
    done < <(exec curl -s -N --fail "${again[@]}" -H "$key" -H "Last-Event-ID: $last" "$events")
    kill "$!" 2>/dev/null || true
    why=0
    wait "$!" || why=$?
    [[ $why != 22 ]] || call "$events" # it is refused: this says why, and ends the script
    [[ -n $ended ]] || {
        echo "connection lost, going on after event $last" >&2
        sleep 2
    }
done
show "$ended"
